# Inside of a plain Debian: the packages' whole life. Each step says what it shows; the first that fails ends it.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
data=/var/lib/tidegate-collector
config=/etc/tidegate/agent.toml
# Names and ports of this run's own: others may run beside it.
own=$(cut -c1-8 /proc/sys/kernel/random/uuid)
unified=$(sed -n 's/^[^ ]* \([^ ]*\) cgroup2 .*/\1/p' /proc/mounts | head -n 1)
pins=/sys/fs/bpf/tidegate-dist-$own
group=$unified/tidegate-dist-$own
collector_port=$((20000 + 0x$(echo "$own" | cut -c1-4) % 5000))

say() { echo "dist: $*"; }
# Until this succeeds, for at most 30 s.
until_ok() {
    for _ in $(seq 300); do
        if "$@" >/tmp/last 2>&1; then return 0; fi
        sleep 0.1
    done
    echo "this did not happen: $*" >&2
    cat /tmp/last /tmp/agent.log /tmp/serve.log >&2
    return 1
}
collector() { runuser -u tidegate-collector -- tidegate-collector "$@" --config $data/collector.toml; }
told() { collector query --kind "$1" | grep -q "$2"; }
leave() {
    kill $agent $serve 2>/dev/null || true
    wait
    tidegate-agent detach >/dev/null 2>&1 || true
    rm -rf "$pins"
    echo 0 >"$unified/cgroup.procs"
    # It is empty once what was killed is gone.
    for _ in $(seq 50); do
        if rmdir "$group" 2>/dev/null; then break; fi
        sleep 0.1
    done
}
agent= serve=
trap leave EXIT

dpkg -i /packages/before/*.deb >/dev/null
[ "$(dpkg-query -W -f '${Version}' tidegate-agent)" = 0.0.1 ]
tidegate-agent --version
tidegate-collector --version
say "installed"

for program in agent collector; do
    systemd-analyze verify --man=no /usr/lib/systemd/system/tidegate-$program.service
    [ -s /usr/share/bash-completion/completions/tidegate-$program ]
    [ -s /usr/share/zsh/vendor-completions/_tidegate-$program ]
    [ -s /usr/share/fish/vendor_completions.d/tidegate-$program.fish ]
    dpkg -L tidegate-$program | grep -q "/usr/share/man/man1/tidegate-$program.1.gz"
    # Nothing of a package is the maker's or writable to others.
    ! dpkg -L tidegate-$program | xargs -d '\n' stat -c '%U:%G %A %n' | grep -v '^root:root' | grep .
    ! dpkg -L tidegate-$program | xargs -d '\n' stat -c '%A %n' | grep '^-.......w'
done
systemd-analyze security --offline=true --threshold=45 /usr/lib/systemd/system/tidegate-collector.service >/dev/null
say "units verified, completions and manual pages there"

useradd --system --uid 991 batch
tidegate-agent check --config $config >/dev/null
say "the default configuration is valid"

mkdir "$group"
echo 0 >"$group/cgroup.procs"
runuser -u tidegate-collector -- tidegate-collector init --data-dir $data --origin dist.test/log \
    --listen 127.0.0.1:$collector_port >/dev/null
collector serve >/tmp/serve.log 2>&1 &
serve=$!
until_ok grep -q ready: /tmp/serve.log
collector enrol --agent host-a --out $data/host-a.json
sed -i "s|^#cgroup = .*|cgroup = \"$group\" # by the administrator|; s|^#pin_dir = .*|pin_dir = \"$pins\"|
    s|^#port = 15432|port = $((collector_port + 5000))|" $config
sed -i "s|^destinations = .*|destinations = [\"127.0.0.1:$collector_port\"]|
    s|^#server = \"verify-full\"|server = \"off\"|" $config
tidegate-agent enrol --file $data/host-a.json
tidegate-agent doctor || { echo "doctor is not green" >&2; exit 1; }
tidegate-agent run >/tmp/agent.log 2>&1 &
agent=$!
until_ok grep -q ready: /tmp/agent.log
until_ok told lifecycle started
say "doctor is green, and the first record is at the collector"

dpkg -i /packages/now/*.deb >/dev/null
[ "$(dpkg-query -W -f '${Version}' tidegate-agent)" != 0.0.1 ]
grep -q "by the administrator" $config
[ -e "$pins/link_tg_connect4" ]
kill $agent
wait $agent
tidegate-agent run >/tmp/agent.log 2>&1 &
agent=$!
until_ok told lifecycle "took over the hooks of the run before"
say "upgraded: the configuration stayed, and so did the hooks"

dpkg -r tidegate-agent >/dev/null
[ ! -e "$pins/link_tg_connect4" ]
until_ok told lifecycle "detached by command to the running agent"
kill $agent
wait $agent || true
[ ! -e /usr/bin/tidegate-agent ]
[ -d /var/lib/tidegate/agent ]
grep -q "by the administrator" $config
say "removed: the hooks went, on record; configuration and state stayed"

dpkg -P tidegate-agent >/dev/null
[ ! -e /var/lib/tidegate ]
[ ! -e /etc/tidegate ]
say "purged: nothing is left"

collector verify
kill $serve
wait $serve || true
serve=
dpkg -r tidegate-collector >/dev/null
dpkg -P tidegate-collector
[ ! -e /usr/bin/tidegate-collector ]
[ -d $data/log/seg ]
say "the collector is gone, and its evidence is not"
