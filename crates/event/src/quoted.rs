//! Names in double quotes, in which a double quote is doubled: SQL's delimited identifiers, and the
//! parts of Cedar entity ids.
//!
//! Cannot do: Unicode escapes (`U&"..."`); they belong to the grammar that has them.

/// Reads a name of which the opening double quote is already off, and what stands behind it; `None`
/// where it never ends.
pub fn unquote(mut rest: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    loop {
        let (inside, behind) = rest.split_once('"')?;
        name.push_str(inside);
        match behind.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unquote;

    #[test]
    fn a_doubled_quote_is_one_and_a_single_one_ends() {
        for (text, expected) in [
            (r#"a".b"#, Some(("a", ".b"))),
            (r#"a""b" c"#, Some(("a\"b", " c"))),
            (r#""""#, None),
            (r#"""""#, Some(("\"", ""))),
            (r#"""#, Some(("", ""))),
            (r#"a""#, Some(("a", ""))),
            (r#"a"""#, None),
            ("a", None),
        ] {
            let got = unquote(text);
            assert_eq!(got.as_ref().map(|(name, rest)| (name.as_str(), *rest)), expected, "{text}");
        }
    }
}
