#!/bin/sh
# Runs one test of the suite as the account that passwd names, in a mount namespace of its own.
# one.sh DIRECTORY UID PORT PROXY-PORT TEST
set -e
dir=$1 uid=$2 port=$3 proxy=$4 test=$5
mount --bind "$dir/passwd" /etc/passwd
mount --bind "$dir/group" /etc/group
cd "$dir/regress"
run() { exec setpriv --reuid="$uid" --regid="$uid" --clear-groups env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    HOME="$dir/home" USER=suite LOGNAME=suite SHELL=/bin/sh LC_ALL=C BUILDDIR="$dir/regress" OBJ="$dir/regress" \
    TEST_SHELL=sh TEST_SSH_PORT="$port" TIDEGATE_PROXY_PORT="$proxy" TEST_SSH_SSH=ssh TEST_SSH_SFTPSERVER=/usr/lib/openssh/sftp-server \
    TEST_SSH_UNSAFE_PERMISSIONS=1 TEST_SSH_IPV6=no TEST_SSH_ECC=yes SUDO= "$@"; }
# The suite's own sshd in inetd mode, but behind a port that can be captured.
rm -f "$dir/inetd.out"
run python3 "$dir/inetd.py" "$proxy" sh "$dir/regress/sshd-log-wrapper.sh" "$dir/regress/sshd.log" /usr/sbin/sshd -i \
    -f "$dir/regress/sshd_proxy" >"$dir/inetd.out" 2>&1 &
inetd=$!
trap 'kill $inetd 2>/dev/null || true' EXIT
until grep -q listens "$dir/inetd.out" 2>/dev/null; do kill -0 $inetd || exit 99; done
set +e
(run sh ./test-exec.sh "$dir/regress" "$dir/regress/$test.sh") </dev/null
code=$?
exit $code
