//! Which server a laboratory has: Debian's own MariaDB, or one that `cargo xtask setup` unpacked from another suite
//! and that runs with that suite's loader and libraries.
//!
//! Limits: the user `mysql` must be able to enter `target/tools`; where it can't, the server says so in its log.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};

use super::Identity;
use crate::lab::{places, term};

/// Changes whenever what [`Server::template`] makes does.
const TEMPLATE_VERSION: &str = "2";

/// A server program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Server {
    /// Debian's own MariaDB (10.11 in Debian 12).
    #[default]
    System,
    /// MariaDB 11.8.
    Mariadb11,
    /// MySQL 9.
    Mysql,
}

impl Server {
    /// The directory with its files, where it is not the system's.
    fn root(self) -> Option<PathBuf> {
        let name = match self {
            Self::System => return None,
            Self::Mariadb11 => "mariadb-11.8-root",
            Self::Mysql => "mysql-root",
        };
        Some(crate::run::tools().join(name))
    }

    /// Whether it is MySQL's own.
    pub const fn is_mysql(self) -> bool {
        matches!(self, Self::Mysql)
    }

    /// Fails where it is not there, with the line to type.
    pub fn is_there(self) -> anyhow::Result<()> {
        let program =
            self.file(if self.is_mysql() { "usr/sbin/mysqld" } else { "usr/sbin/mariadbd" });
        let purpose = if self.is_mysql() { " mysql-servers" } else { "" };
        let program = program.display();
        anyhow::ensure!(
            Path::new(&program.to_string()).exists(),
            "{program} is missing: run `cargo xtask setup{purpose}`"
        );
        Ok(())
    }

    fn file(self, name: &str) -> PathBuf {
        self.root().unwrap_or_else(|| PathBuf::from("/")).join(name)
    }

    /// One of its programs, below its root; and the program that starts it.
    pub fn started_by(self, program: &str) -> (PathBuf, Vec<String>) {
        let Some(root) = self.root() else { return (Path::new("/").join(program), Vec::new()) };
        let arch = std::env::consts::ARCH;
        let loader = match arch {
            "x86_64" => "usr/lib64/ld-linux-x86-64.so.2",
            _ => "usr/lib/ld-linux-aarch64.so.1",
        };
        let libraries = root.join(format!("usr/lib/{arch}-linux-gnu"));
        // What the root lacks is the system's.
        let own = root.join(program);
        let program = if own.exists() { own } else { Path::new("/").join(program) };
        let program = program.display().to_string();
        let args = vec!["--library-path".to_owned(), libraries.display().to_string(), program];
        (root.join(loader), args)
    }

    /// The server itself, with where its own files are.
    pub fn command(self) -> Command {
        let name = if self.is_mysql() { "usr/sbin/mysqld" } else { "usr/sbin/mariadbd" };
        let (program, args) = self.started_by(name);
        let mut command = Command::new(program);
        command.args(args).arg("--no-defaults");
        if let Some(root) = self.root() {
            let share =
                root.join(if self.is_mysql() { "usr/share/mysql" } else { "usr/share/mariadb" });
            for (name, at) in [
                ("basedir", root.join("usr")),
                ("lc-messages-dir", share.clone()),
                ("character-sets-dir", share.join("charsets")),
                ("plugin-dir", root.join("usr/lib/mysql/plugin")),
            ] {
                command.arg(format!("--{name}={}", at.display()));
            }
        }
        command.env_clear().env("LC_ALL", "C.UTF-8");
        command
    }

    /// What it is told beside where its files are.
    pub const fn settings(self) -> &'static [&'static str] {
        match self {
            Self::System => &["--plugin-load-add=auth_ed25519"],
            Self::Mariadb11 => &["--plugin-load-add=auth_ed25519", "--plugin-load-add=auth_parsec"],
            // Raw: what does not parse is logged too.
            Self::Mysql => &["--mysqlx=OFF", "--secure-file-priv=", "--log-raw=1"],
        }
    }

    /// Where its clients find what is not built into them.
    pub fn client_settings(self) -> Vec<String> {
        let Some(root) = self.root() else { return Vec::new() };
        let own = if self.is_mysql() {
            ("character-sets-dir", "usr/share/mysql/charsets".to_owned())
        } else {
            let arch = std::env::consts::ARCH;
            ("plugin-dir", format!("usr/lib/{arch}-linux-gnu/libmariadb3/plugin"))
        };
        vec![format!("--{}={}", own.0, root.join(own.1).display())]
    }

    /// Accounts of which every laboratory's server has its own: `app` has all rights on database `app`.
    pub fn accounts(self, password: &str) -> String {
        let others: &[(&str, &str)] = match self {
            Self::System => &[("app_ed25519", "ed25519")],
            Self::Mariadb11 => &[("app_ed25519", "ed25519"), ("app_parsec", "parsec")],
            Self::Mysql => &[],
        };
        let mut sql =
            format!("CREATE DATABASE app; CREATE USER app@'%' IDENTIFIED BY '{password}'; ");
        for (user, plugin) in others {
            let more = format!(
                "CREATE USER {user}@'%' IDENTIFIED VIA {plugin} USING PASSWORD('{password}'); \
                 GRANT ALL ON app.* TO {user}@'%'; "
            );
            sql += &more;
        }
        sql + "GRANT ALL ON app.* TO app@'%'; \
            CREATE USER root@'%'; GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION; \
            GRANT PROCESS, RELOAD, FILE, SUPER ON *.* TO app@'%'"
    }

    /// The empty data directory, made on first use. Others wait for whoever makes it.
    pub fn template(self, user: (u32, u32)) -> anyhow::Result<PathBuf> {
        self.is_there()?;
        let cache = places::cache("mariadb")?;
        let lock = File::create(cache.join("lock"))?;
        let _held = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, error)| anyhow::anyhow!("locking the data template: {error}"))?;
        let ready = cache.join(format!("{TEMPLATE_VERSION}-{self:?}"));
        if !ready.exists() {
            term::note("making the MariaDB data that laboratories start from ...");
            let making = cache.join("making");
            let _ = fs::remove_dir_all(&making);
            self.make_template(user, &making)?;
            fs::rename(&making, &ready)?;
        }
        Ok(ready)
    }

    fn make_template(self, user: (u32, u32), into: &Path) -> anyhow::Result<()> {
        // Made elsewhere: the target directory may lie where `mysql` may not look.
        let dir = tempfile::Builder::new().prefix("tidegate-mariadb-").tempdir()?;
        std::os::unix::fs::chown(dir.path(), Some(user.0), Some(user.1))?;
        let data = dir.path().join("data");
        let identity = Identity { uid: Some(user.0), gid: Some(user.1), ..Identity::default() };
        let mut install = match self {
            Self::System => {
                let mut install = Command::new("mariadb-install-db");
                let normal = "--auth-root-authentication-method=normal";
                install.args(["--no-defaults", "--skip-test-db", normal]);
                install
            }
            Self::Mysql => {
                let mut install = self.command();
                install.arg("--initialize-insecure").args(self.settings());
                install
            }
            Self::Mariadb11 => {
                fs::create_dir(&data)?;
                std::os::unix::fs::chown(&data, Some(user.0), Some(user.1))?;
                let sql = dir.path().join("bootstrap.sql");
                self.write_bootstrap(&sql)?;
                let mut install = self.command();
                install.args(["--bootstrap", "--enforce-storage-engine=", "--log-warnings=0"]);
                install.stdin(Stdio::from(File::open(sql)?));
                install
            }
        };
        install.arg(format!("--datadir={}", data.display())).current_dir(dir.path());
        identity.apply(&mut install)?;
        places::run(&mut install)?;
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(&data).arg(into);
        places::run(&mut copy).map(drop)
    }

    /// What mariadb-install-db would feed the server: its own tables, `root` without password.
    fn write_bootstrap(self, into: &Path) -> anyhow::Result<()> {
        let share = self.file("usr/share/mariadb");
        let mut sql = "CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\n\
            SET @auth_root_socket=NULL;\nSET @skip_auth_anonymous=1;\n"
            .to_owned();
        for name in [
            "mariadb_system_tables.sql",
            "mariadb_performance_tables.sql",
            "mariadb_system_tables_data.sql",
            "maria_add_gis_sp_bootstrap.sql",
            "mariadb_sys_schema.sql",
        ] {
            let file = share.join(name);
            sql += &fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            sql.push('\n');
        }
        Ok(fs::write(into, sql)?)
    }
}
