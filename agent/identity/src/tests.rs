//! A `/proc` of our own, in which pids change hands.

use std::cell::Cell;
use std::os::unix::fs::symlink;

use super::*;

fn raw(pid: u32, boot_ns: u64) -> RawCapture {
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"psql");
    RawCapture {
        addr: tidegate_agent_common::words_of("10.0.0.5".parse().unwrap()),
        socket_cookie: 1,
        netns_cookie: 2,
        cgroup_id: 3,
        connected_ns: 4,
        connected_boot_ns: boot_ns,
        state: tidegate_agent_common::STATE_ACCEPTED,
        version: tidegate_agent_common::ABI_VERSION,
        rule: 5,
        uid: 6,
        owner: 6,
        gid: 7,
        pid,
        tid: pid,
        port: 5432,
        family: 2,
        comm,
        zero: 0,
    }
}

fn stat(name: &str, ticks: u64) -> String {
    format!("42 ({name}) S 1 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 {ticks} 1 1 1\n")
}

/// A process that started at tick 100, in a directory that looks like `/proc`.
fn proc_with(pid: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let process = directory.path().join(pid.to_string());
    fs::create_dir(&process).unwrap();
    fs::write(process.join("stat"), stat("psql", 100)).unwrap();
    fs::write(process.join("cgroup"), "1:name=systemd:/x\n0::/jobs/nightly\n").unwrap();
    let program = directory.path().join("psql");
    fs::write(&program, "a program").unwrap();
    symlink(&program, process.join("exe")).unwrap();
    (directory, program)
}

const AFTER_START_NS: u64 = 100 * NANOS_PER_TICK;

#[test]
fn a_living_process_is_named_with_its_executable_and_cgroup() {
    let (directory, program) = proc_with(42);
    let cgroups = directory.path().join("cgroups");
    fs::create_dir_all(cgroups.join("jobs/nightly")).unwrap();
    let mut raw = raw(42, AFTER_START_NS);
    raw.cgroup_id = fs::metadata(cgroups.join("jobs/nightly")).unwrap().ino();
    let processes = ProcDirectory::at(directory.path(), Some(&cgroups));
    let capture = describe_by(&raw, &processes);
    assert_eq!(capture.original, "10.0.0.5:5432".parse().unwrap());
    assert_eq!(capture.process.executable, Executable::Path(program.display().to_string()));
    assert_eq!(capture.process.cgroup.as_deref(), Some("/jobs/nightly"));
    assert_eq!(capture.process.comm, "psql");
    assert_eq!((capture.process.uid, capture.process.gid, capture.rule), (6, 7, 5));
    // The same process, had it moved since: the path is another cgroup's and not told.
    raw.cgroup_id += 1;
    assert_eq!(describe_by(&raw, &processes).process.cgroup, None);
}

#[test]
fn what_is_not_known_is_said_with_its_reason() {
    let check = |change: &dyn Fn(&Path), boot_ns: u64, expected: &str| {
        let (directory, _) = proc_with(42);
        change(directory.path());
        let processes = ProcDirectory::at(directory.path(), None);
        match describe_by(&raw(42, boot_ns), &processes).process.executable {
            Executable::Unknown(why) => assert!(why.contains(expected), "{why}"),
            Executable::Path(path) => panic!("{path} was named, expected: {expected}"),
        }
    };
    let nothing = |_: &Path| {};
    check(&nothing, AFTER_START_NS - 1, "another has its pid");
    check(&|root| fs::remove_dir_all(root.join("42")).unwrap(), AFTER_START_NS, "had ended");
    check(&|root| fs::remove_file(root.join("42/exe")).unwrap(), AFTER_START_NS, "does not tell");
    check(&|root| fs::write(root.join("42/stat"), "42 (x").unwrap(), AFTER_START_NS, "had ended");
}

struct Fake {
    looks: Cell<u64>,
    changes_hands: bool,
    same_here: bool,
}

impl Processes for Fake {
    fn started_ticks(&self, _: u32) -> io::Result<u64> {
        self.looks.set(self.looks.get() + 1);
        Ok(if self.changes_hands { self.looks.get() } else { 1 })
    }
    fn executable(&self, _: u32) -> io::Result<Named> {
        Ok(Named { path: PathBuf::from("/usr/bin/psql"), same_here: self.same_here })
    }
    fn cgroup(&self, _: u32) -> io::Result<String> {
        Err(io::Error::other("none"))
    }
    fn cgroup_id(&self, _: &str) -> Option<u64> {
        None
    }
}

#[test]
fn a_pid_that_changes_hands_during_the_look_names_nobody() {
    let fake = Fake { looks: Cell::new(0), changes_hands: true, same_here: true };
    let executable = describe_by(&raw(42, AFTER_START_NS), &fake).process.executable;
    assert!(matches!(&executable, Executable::Unknown(why) if why.contains("while")));
}

#[test]
fn a_path_that_means_another_file_here_is_no_identity() {
    let fake = Fake { looks: Cell::new(0), changes_hands: false, same_here: false };
    let executable = describe_by(&raw(42, AFTER_START_NS), &fake).process.executable;
    assert!(matches!(&executable, Executable::Unknown(why) if why.contains("/usr/bin/psql")));
}

#[test]
fn a_process_name_cannot_forge_the_start_time() {
    let name = "x) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 7 (y";
    assert_eq!(started_in(&stat(name, 4711)), Some(4711));
    assert_eq!(started_in(""), None);
    assert_eq!(started_in("1 (x) S"), None);
}
