//! Recorded conversations. Each file in `tests/golden` holds the input lines and, indented, what
//! came out. A failure shows the whole conversation as it is now: read it, and if it is right,
//! put it in the file's place.

use super::script::converse;

#[test]
#[expect(clippy::disallowed_methods, reason = "the recorded conversations are files")]
fn conversations_are_as_recorded() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let mut differ = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let recorded = std::fs::read_to_string(&path).unwrap();
        count += 1;
        let now = converse(&recorded);
        if now != recorded {
            differ.push(format!("=== {}\n{now}", path.display()));
        }
    }
    assert!(count >= 20, "only {count} conversations found");
    assert!(differ.is_empty(), "these differ; as they are now:\n{}=== end", differ.join(""));
}
