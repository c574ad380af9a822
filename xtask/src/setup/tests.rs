//! The table is sound, and looking finds what is there and nothing else.

use super::Purpose;
use super::need::{LIBCLANG, NEEDS, Probe, Provide};
use super::probe::{expand, fits, probe};

#[test]
fn a_pattern_fits_its_names_only() {
    for (pattern, name, expected) in [
        ("llvm-*", "llvm-22", true),
        ("llvm-*", "llvm", false),
        ("*.so*", "libclang.so.14", true),
        ("*.so*", "libclang.a", false),
        ("a*b*c", "abbc", true),
        ("a*b*c", "ab", false),
        ("*", "", true),
    ] {
        assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
    }
}

#[test]
fn a_pattern_gives_files_that_exist() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["v1/bin", "v2/bin", "v3/lib"] {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let found = expand(&dir.path().join("v*/bin"));
    assert_eq!(found, [dir.path().join("v1/bin"), dir.path().join("v2/bin")]);
    assert!(expand(&dir.path().join("w*/bin")).is_empty());
    assert!(expand(&dir.path().join("v3/bin")).is_empty());
}

#[test]
fn what_is_not_there_is_not_found() {
    assert!(probe(Probe::Program("sh")));
    assert!(!probe(Probe::Program("a-program-that-nobody-has")));
    assert!(!probe(Probe::Any(&[])));
    assert!(probe(Probe::All(&[])));
    assert!(!probe(Probe::All(&[Probe::File("/"), Probe::File("/nowhere")])));
}

#[test]
fn libclang_is_not_libclang_cpp() {
    let fitting = |file: &str| {
        LIBCLANG.iter().any(|probe| match probe {
            Probe::File(pattern) => {
                let name = pattern.rsplit('/').next().unwrap();
                fits(name, file)
            }
            other => panic!("{other:?} is no file"),
        })
    };
    for name in ["libclang.so", "libclang.so.1", "libclang-14.so.14.0.6", "libclang-22.so.22"] {
        assert!(fitting(name), "{name}");
    }
    for name in ["libclang-cpp.so.14", "libclang-cpp.so.22.1", "libclang-common.a"] {
        assert!(!fitting(name), "{name}");
    }
}

#[test]
fn the_table_is_sound() {
    for part in Purpose::All.parts().iter().chain(Purpose::LintAll.parts()) {
        assert!(NEEDS.iter().any(|need| need.parts.contains(part)), "{part:?}");
    }
    for need in NEEDS {
        let purposes = [Purpose::All, Purpose::LintAll, Purpose::MysqlServers];
        let known = |part| purposes.iter().any(|purpose| purpose.parts().contains(part));
        assert!(!need.parts.is_empty() && need.parts.iter().all(known), "{}", need.name);
    }
    let mut names = std::collections::HashSet::new();
    for need in NEEDS {
        assert!(names.insert(need.name), "{} stands twice", need.name);
        assert!(!need.why.is_empty() && need.seconds > 0, "{}", need.name);
        // What a later need is built with comes first.
        if let Provide::Pip(_) = need.provide {
            let python = NEEDS.iter().position(|other| other.name == "Python").unwrap();
            let own = NEEDS.iter().position(|other| other.name == need.name).unwrap();
            assert!(python < own, "{} comes before Python", need.name);
            let python = NEEDS.get(python).unwrap();
            let covered = need.parts.iter().all(|part| python.parts.contains(part));
            assert!(covered, "{} is asked for without Python", need.name);
        }
    }
}
