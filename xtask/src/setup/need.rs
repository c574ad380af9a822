//! The table of needs: what, for what, how it is found, how it is got.

use super::root::Root;

/// What a need is for: a part of one or more chores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Building the workspace.
    Build,
    /// Building the kernel programs.
    Ebpf,
    /// Linting.
    Lint,
    /// The linters that take minutes to build.
    LintAll,
    /// Running the tests.
    Test,
    /// A PostgreSQL to talk to.
    Postgres,
    /// Catching connections on this host.
    Capture,
    /// Clients other than psql.
    Clients,
    /// A browser for the review pages.
    Browser,
    /// A machine with a kernel of its own.
    Vm,
    /// A server that no ordinary test needs, since its suite changes every day.
    MysqlServer,
    /// What we measure ourselves against.
    Bench,
    /// PostgreSQL's own regression suite.
    Conformance,
    /// Debian packages.
    Dist,
}

/// How a need is found. Files only, so that looking is fast and has no effect.
#[derive(Debug, Clone, Copy)]
pub(super) enum Probe {
    /// A program on `PATH`, in `target/tools` or among the system's programs.
    Program(&'static str),
    /// A file; each `*` stands for a part of one name.
    File(&'static str),
    /// A file below `target/tools`.
    Tool(&'static str),
    /// A component of the toolchain that runs us (a rustup proxy on `PATH` proves nothing).
    Component(&'static str),
    /// Any of these.
    Any(&'static [Probe]),
    /// All of these.
    All(&'static [Probe]),
    /// A rustup nightly with its library's source.
    NightlySource,
    /// A kernel for the test machine.
    VmKernel,
    /// A bpffs.
    Bpffs,
}

/// How a need is got.
#[derive(Debug, Clone, Copy)]
pub(super) enum Provide {
    /// Debian packages.
    Apt(&'static [&'static str]),
    /// A component of the toolchain that runs us.
    Rustup(&'static str),
    /// A crate with a program, built into `target/tools`.
    Cargo {
        krate: &'static str,
        args: &'static [&'static str],
        env: &'static [(&'static str, &'static str)],
    },
    /// Packages from PyPI, into `target/tools/venv`.
    Pip(&'static [&'static str]),
    /// Packages from npm, into `target/tools/node`; none of their scripts is run.
    Npm(&'static [&'static str]),
    /// Debian's kernel package, unpacked into `target/tools/kernel` and not installed: it would
    /// enter the host's boot menu.
    VmKernel,
    /// Packages of another Debian suite with all that they depend on, unpacked and not installed.
    Root(Root),
    /// A mount of a bpffs.
    Bpffs,
}

/// One need.
#[derive(Debug)]
pub(super) struct Need {
    pub name: &'static str,
    pub why: &'static str,
    pub parts: &'static [Part],
    pub probe: Probe,
    pub provide: Provide,
    /// About how long it takes to get, on two cores and a fast line.
    pub seconds: u64,
}

/// Where clang-sys finds libclang, by the names that it takes: with its version or without, and never
/// libclang-cpp, which other packages bring and which bindgen cannot use.
pub(super) const LIBCLANG: &[Probe] = &[
    Probe::File("/usr/lib/llvm-*/lib/libclang.so*"),
    Probe::File("/usr/lib/llvm-*/lib/libclang-1*.so*"),
    Probe::File("/usr/lib/llvm-*/lib/libclang-2*.so*"),
    Probe::File("/usr/lib/*-linux-gnu/libclang.so*"),
    Probe::File("/usr/lib/*-linux-gnu/libclang-1*.so*"),
    Probe::File("/usr/lib/*-linux-gnu/libclang-2*.so*"),
    Probe::File("/usr/lib64/libclang.so*"),
];

/// The version that the kernel programs are tried with.
const BPF_LINKER: &str = "bpf-linker@0.13.0";

/// The version that the tests are tried with.
const NEXTEST: &str = "cargo-nextest@0.9.143";

const fn apt(
    name: &'static str,
    why: &'static str,
    parts: &'static [Part],
    probe: Probe,
    packages: &'static [&'static str],
    seconds: u64,
) -> Need {
    Need { name, why, parts, probe, provide: Provide::Apt(packages), seconds }
}

use Part::{
    Bench, Browser, Build, Capture, Clients, Conformance, Dist, Ebpf, Lint, LintAll, MysqlServer,
    Postgres, Test, Vm,
};

/// Everything.
#[rustfmt::skip] // A table: a need is read faster in two or three lines than in ten.
pub(super) const NEEDS: &[Need] = &[
    apt("C compiler", "links programs, builds SQLite and libpg_query", &[Build],
        Probe::Program("cc"), &["gcc", "libc6-dev"], 10),
    apt("libclang", "reads libpg_query's headers (bindgen)", &[Build],
        Probe::Any(LIBCLANG), &["libclang-dev"], 30),
    apt("a Rust for BPF", "compiles the kernel programs (nightly with rust-src, or Debian's)",
        &[Ebpf],
        Probe::Any(&[
            Probe::NightlySource,
            Probe::All(&[
                Probe::File("/usr/bin/rustc"),
                Probe::File("/usr/src/rustc-*/library/core/src/lib.rs"),
            ]),
        ]), &["rustc-web", "cargo-web", "rust-web-src"], 30),
    apt("LLVM 22", "links the kernel programs (bpf-linker)", &[Ebpf],
        Probe::Any(&[
            Probe::Program("bpf-linker"),
            Probe::All(&[
                Probe::File("/usr/lib/llvm-22/bin/llvm-config"),
                Probe::File("/usr/lib/llvm-22/lib/libPolly.a"),
                Probe::Program("c++"),
            ]),
        ]), &["llvm-22-dev", "libpolly-22-dev", "g++"], 60),
    Need {
        name: "bpf-linker",
        why: "links the kernel programs",
        parts: &[Ebpf],
        probe: Probe::Program("bpf-linker"),
        provide: Provide::Cargo {
            krate: BPF_LINKER,
            args: &["--no-default-features", "--features", "llvm-22"],
            env: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
        },
        seconds: 80,
    },
    Need {
        name: "rustfmt",
        why: "formats",
        parts: &[Lint],
        probe: Probe::Component("rustfmt"),
        provide: Provide::Rustup("rustfmt"),
        seconds: 5,
    },
    Need {
        name: "clippy",
        why: "lints",
        parts: &[Lint],
        probe: Probe::Component("cargo-clippy"),
        provide: Provide::Rustup("clippy"),
        seconds: 5,
    },
    apt("Python", "runs psycopg, typos and Playwright, in a venv", &[Lint, Clients, Browser],
        Probe::All(&[
            Probe::File("/usr/bin/python3"),
            Probe::Any(&[
                Probe::File("/usr/lib/python3*/ensurepip/_bundled/pip-*.whl"),
                Probe::File("/usr/share/python-wheels/pip-*.whl"),
            ]),
            Probe::File("/usr/lib/python3*/ensurepip/__init__.py"),
        ]), &["python3", "python3-venv"], 15),
    Need {
        name: "typos",
        why: "checks spelling",
        parts: &[Lint],
        probe: Probe::Tool("venv/bin/typos"),
        provide: Provide::Pip(&["typos==1.52.0"]),
        seconds: 10,
    },
    Need {
        name: "cargo-machete",
        why: "finds dependencies that nobody uses",
        parts: &[LintAll],
        probe: Probe::Program("cargo-machete"),
        provide: Provide::Cargo { krate: "cargo-machete@0.9.2", args: &[], env: &[] },
        seconds: 120,
    },
    Need {
        name: "cargo-deny",
        why: "checks licences, sources and bans of dependencies",
        parts: &[LintAll],
        probe: Probe::Program("cargo-deny"),
        provide: Provide::Cargo { krate: "cargo-deny@0.20.2", args: &[], env: &[] },
        seconds: 600,
    },
    Need {
        name: "cargo-nextest",
        why: "runs the tests",
        parts: &[Test],
        probe: Probe::Program("cargo-nextest"),
        provide: Provide::Cargo { krate: NEXTEST, args: &[], env: &[] },
        seconds: 420,
    },
    apt("login shells", "run what SSH commands are read as (busybox is the test machine's)", &[Test],
        Probe::All(&[
            Probe::Program("dash"),
            Probe::Program("bash"),
            Probe::Program("zsh"),
            Probe::Program("ksh93"),
            Probe::Program("mksh"),
            Probe::Program("tcsh"),
            Probe::Program("fish"),
        ]), &["dash", "bash", "zsh", "ksh93u+m", "mksh", "tcsh", "fish"], 30),
    apt("PostgreSQL", "the server, psql and pgbench", &[Postgres],
        Probe::All(&[
            Probe::File("/usr/lib/postgresql/*/bin/postgres"),
            Probe::File("/usr/lib/postgresql/*/bin/pgbench"),
            Probe::File("/usr/lib/postgresql/*/bin/psql"),
        ]), &["postgresql", "postgresql-client"], 30),
    Need {
        name: "bpffs",
        why: "keeps the kernel programs when the agent stops",
        parts: &[Capture],
        probe: Probe::Bpffs,
        provide: Provide::Bpffs,
        seconds: 1,
    },
    apt("ip", "network namespaces for tests", &[Capture],
        Probe::Program("ip"), &["iproute2"], 5),
    Need {
        name: "psycopg",
        why: "an unmodified client: Python",
        parts: &[Clients],
        probe: Probe::Tool("venv/lib/python3*/site-packages/psycopg_binary/__init__.py"),
        provide: Provide::Pip(&["psycopg[binary]==3.3.9"]),
        seconds: 15,
    },
    apt("Chromium", "reads the review pages", &[Browser],
        Probe::File("/usr/bin/chromium"), &["chromium"], 30),
    Need {
        name: "Playwright",
        why: "drives Chromium",
        parts: &[Browser],
        probe: Probe::Tool("venv/lib/python3*/site-packages/playwright/__init__.py"),
        provide: Provide::Pip(&["playwright==1.65.2"]),
        seconds: 15,
    },
    Need {
        name: "axe",
        why: "finds what is hard to read, see or reach on a page (axe-core 4.12)",
        parts: &[Browser],
        probe: Probe::Tool("venv/lib/python3*/site-packages/axe_playwright_python/axe.min.js"),
        provide: Provide::Pip(&["axe-playwright-python==0.1.8"]),
        seconds: 5,
    },
    apt("OpenSSH", "an SSH server, and unmodified clients", &[Clients],
        Probe::All(&[Probe::File("/usr/sbin/sshd"), Probe::File("/usr/bin/ssh")]),
        &["openssh-server", "openssh-client"], 20),
    apt("programs over SSH", "unmodified clients: rsync, git, curl with libssh2; xauth", &[Clients],
        Probe::All(&[
            Probe::Program("rsync"), Probe::Program("git"), Probe::Program("curl"), Probe::Program("xauth"),
        ]), &["rsync", "git", "curl", "xauth"], 15),
    Need {
        name: "paramiko",
        why: "an unmodified client: SSH in Python, without host certificates",
        parts: &[Clients],
        probe: Probe::Tool("venv/lib/python3*/site-packages/paramiko/__init__.py"),
        provide: Provide::Pip(&["paramiko==5.1.0"]),
        seconds: 10,
    },
    Need {
        name: "asyncssh",
        why: "an unmodified client: SSH in Python, with host certificates",
        parts: &[Clients],
        probe: Probe::Tool("venv/lib/python3*/site-packages/asyncssh/__init__.py"),
        provide: Provide::Pip(&["asyncssh==2.24.1"]),
        seconds: 10,
    },
    Need {
        name: "Ansible",
        why: "an unmodified client that drives OpenSSH's",
        parts: &[Clients],
        probe: Probe::Tool("venv/lib/python3*/site-packages/ansible/__init__.py"),
        provide: Provide::Pip(&["ansible-core==2.19.14"]),
        seconds: 20,
    },
    apt("vi and top", "programs that draw on a terminal, for recordings of one", &[Clients],
        Probe::All(&[Probe::File("/usr/bin/vi"), Probe::File("/usr/bin/top")]),
        &["vim-tiny", "procps"], 5),
    apt("MariaDB", "a second server, its CLI and its dump", &[Clients, Conformance],
        Probe::All(&[Probe::File("/usr/sbin/mariadbd"), Probe::File("/usr/bin/mariadb-dump")]),
        &["mariadb-server", "mariadb-client"], 60),
    Need {
        name: "PyMySQL",
        why: "an unmodified client: Python, text protocol",
        parts: &[Clients],
        probe: Probe::Tool("venv/lib/python3*/site-packages/pymysql/__init__.py"),
        provide: Provide::Pip(&["PyMySQL==1.2.4"]),
        seconds: 5,
    },
    Need {
        name: "MySQL Connector/Python",
        why: "an unmodified client: Python, prepared statements and TLS",
        parts: &[Clients],
        probe: Probe::Tool("venv/lib/python3*/site-packages/mysql/connector/__init__.py"),
        provide: Provide::Pip(&["mysql-connector-python==26.10.0"]),
        seconds: 15,
    },
    apt("MariaDB's client library", "builds two clients in C (mysqlclient, MariaDB Connector/Python)",
        &[Clients],
        Probe::All(&[
            Probe::Program("mariadb_config"),
            Probe::Program("pkg-config"),
            Probe::Program("cc"),
            Probe::File("/usr/include/python3*/Python.h"),
        ]), &["libmariadb-dev", "pkg-config", "python3-dev", "gcc"], 20),
    Need {
        name: "mysqlclient",
        why: "an unmodified client: Python over MariaDB's library in C",
        parts: &[Clients],
        probe: Probe::Tool("venv/lib/python3*/site-packages/MySQLdb/__init__.py"),
        provide: Provide::Pip(&["mysqlclient==2.3.2"]),
        seconds: 20,
    },
    Need {
        name: "MariaDB Connector/Python",
        why: "an unmodified client: bulk execution and server-side cursors",
        parts: &[Clients],
        probe: Probe::Tool("venv/lib/python3*/site-packages/mariadb/__init__.py"),
        provide: Provide::Pip(&["mariadb==1.1.14"]),
        seconds: 30,
    },
    apt("Node.js", "unmodified clients: JavaScript", &[Clients],
        Probe::All(&[Probe::File("/usr/bin/node"), Probe::Program("npm")]), &["nodejs", "npm"], 60),
    Need {
        name: "Node's MySQL drivers",
        why: "unmodified clients: mysql2, and MariaDB's connector, which sends ahead",
        parts: &[Clients],
        probe: Probe::All(&[
            Probe::Tool("node/node_modules/mysql2/package.json"),
            Probe::Tool("node/node_modules/mariadb/package.json"),
        ]),
        provide: Provide::Npm(&["mysql2@3.24.6", "mariadb@3.5.4"]),
        seconds: 10,
    },
    Need {
        name: "MariaDB 11.8",
        why: "a newer server and its clients, unpacked from Debian 13",
        parts: &[Clients],
        probe: Probe::Tool("mariadb-11.8-root/usr/sbin/mariadbd"),
        provide: Provide::Root(Root {
            name: "mariadb-11.8",
            suite: "trixie",
            packages: &["mariadb-server", "mariadb-client"],
        }),
        seconds: 15,
    },
    Need {
        name: "MySQL 9",
        why: "MySQL's own server and client, unpacked from Debian's sid",
        parts: &[MysqlServer],
        probe: Probe::Tool("mysql-root/usr/sbin/mysqld"),
        provide: Provide::Root(Root {
            name: "mysql",
            suite: "sid",
            packages: &["mysql-server-core", "mysql-client-core"],
        }),
        seconds: 20,
    },
    apt("Java", "an unmodified client: JDBC", &[Clients],
        Probe::Program("javac"), &["default-jdk-headless"], 60),
    apt("PostgreSQL's JDBC driver", "an unmodified client: JDBC", &[Clients],
        Probe::File("/usr/share/java/postgresql.jar"), &["libpostgresql-jdbc-java"], 10),
    apt("MariaDB's JDBC driver", "an unmodified client: JDBC", &[Clients],
        Probe::File("/usr/share/java/mariadb-java-client.jar"), &["libmariadb-java"], 10),
    apt("QEMU", "the test machine", &[Vm],
        Probe::Program("qemu-system-x86_64"), &["qemu-system-x86"], 40),
    apt("busybox", "the test machine's programs", &[Vm],
        Probe::Any(&[Probe::File("/bin/busybox"), Probe::File("/usr/bin/busybox")]),
        &["busybox-static"], 5),
    apt("cpio", "packs the test machine's files", &[Vm], Probe::Program("cpio"), &["cpio"], 5),
    Need {
        name: "Debian's cloud kernel",
        why: "the test machine's kernel",
        parts: &[Vm],
        probe: Probe::VmKernel,
        provide: Provide::VmKernel,
        seconds: 20,
    },
    apt("haproxy", "compared with: a TCP proxy", &[Bench],
        Probe::Program("haproxy"), &["haproxy"], 10),
    apt("pgbouncer", "compared with: a pooler", &[Bench],
        Probe::Program("pgbouncer"), &["pgbouncer"], 10),
    apt("sysbench", "loads MariaDB", &[Bench],
        Probe::Program("sysbench"), &["sysbench"], 10),
    apt("MariaDB's test suite", "its main tests", &[Conformance],
        Probe::All(&[
            Probe::Program("mariadb-test"),
            Probe::File("/usr/share/mysql/mysql-test/main/select.test"),
        ]), &["mariadb-test", "mariadb-test-data"], 60),
    apt("OpenSSH's test suite", "its client's tests", &[Conformance],
        Probe::All(&[
            Probe::File("/usr/lib/openssh/regress/test-exec.sh"), Probe::File("/usr/sbin/sshd"),
            Probe::Program("openssl"),
        ]), &["openssh-tests", "openssh-server", "openssh-client", "openssl"], 20),
    apt("dpkg-deb", "packs Debian packages", &[Dist], Probe::Program("dpkg-deb"), &["dpkg"], 5),
    apt("binutils", "strips programs, and says which C library they need", &[Dist],
        Probe::All(&[Probe::Program("strip"), Probe::Program("objdump")]), &["binutils"], 10),
    apt("mmdebstrap", "makes the plain Debian in which packages are tried", &[Dist],
        Probe::Program("mmdebstrap"), &["mmdebstrap"], 20),
    apt("dpkg-dev", "unpacks PostgreSQL's source package", &[Conformance],
        Probe::Program("dpkg-source"), &["dpkg-dev"], 20),
];
