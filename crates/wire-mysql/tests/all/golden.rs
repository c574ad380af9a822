//! Recorded conversations. Each file in `tests/golden` holds the input lines and, indented, what
//! came out. A failure shows the whole conversation as it is now: read it, and if it is right,
//! put it in the file's place.

use super::script::converse;

/// Fewer recorded conversations than this were not all found.
const CONVERSATIONS_MIN: usize = 20;

#[test]
fn conversations_are_as_recorded() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    tidegate_testkit::conversations(folder.as_ref(), CONVERSATIONS_MIN, converse);
}
