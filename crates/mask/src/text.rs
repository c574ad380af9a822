//! Texts that go elsewhere than into results: statements for the record, errors and notices.
//!
//! Promises: see the functions. Cannot do: find a protected value in a message that quotes it without
//! quotation marks; the caller withholds messages that others than the server wrote.

use std::borrow::Cow;
use std::ops::Range;

/// `text` with those of its `literals` masked of which `which` says so, by their number.
pub fn mask_literals<'a>(
    text: &'a str,
    literals: &[Range<usize>],
    which: impl Fn(usize) -> bool,
) -> Cow<'a, str> {
    let mut out = String::new();
    let mut done = 0;
    for (_, range) in literals.iter().enumerate().filter(|(at, _)| which(*at)) {
        let Some(between) = text.get(done..range.start) else { continue };
        out.push_str(between);
        out.push_str("'****'");
        done = range.end;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(out)
}
