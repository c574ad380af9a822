//! What chores say to the person who runs them.
//!
//! Results go to stdout, progress and trouble to stderr. A closed pipe is no error: the work goes on.

use std::io::Write as _;

/// One line of result on stdout.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// One line of progress or trouble on stderr.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
