//! Paths: which part of one the server follows, and what it is without the server.

/// What the server is asked to resolve, and what stands behind its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// For `SSH_FXP_REALPATH`.
    pub ask: Vec<u8>,
    /// The last name, where it is the name itself that is meant and not what it may lead to.
    pub last: Option<Vec<u8>>,
}

/// How the path of a request is resolved: whole, or where `itself` but for its last name.
pub fn resolve(path: &[u8], itself: bool) -> Resolve {
    let trimmed = match path.iter().rposition(|&byte| byte != b'/') {
        Some(end) => path.get(..=end).unwrap_or_default(),
        None => return Resolve { ask: whole(path), last: None },
    };
    // A slash at the end follows a link.
    let itself = itself && trimmed.len() == path.len();
    let (parent, last) = match trimmed.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (trimmed.get(..=at).unwrap_or_default(), trimmed.get(at + 1..)),
        None => (&b"."[..], Some(trimmed)),
    };
    match last {
        Some(last) if itself && last != b"." && last != b".." => {
            Resolve { ask: parent.to_vec(), last: Some(last.to_vec()) }
        }
        _ => Resolve { ask: whole(trimmed), last: None },
    }
}

/// An empty path is the directory where the server is.
fn whole(path: &[u8]) -> Vec<u8> {
    if path.is_empty() { b".".to_vec() } else { path.to_vec() }
}

/// The server's answer with the last name behind it.
pub fn join(resolved: &[u8], last: Option<&[u8]>) -> Vec<u8> {
    let Some(last) = last else { return resolved.to_vec() };
    let slash: &[u8] = if resolved.ends_with(b"/") { b"" } else { b"/" };
    [resolved, slash, last].concat()
}

/// `path` without `.`, `..` and doubled slashes, as text alone tells: for one that the server can't resolve, since a
/// part of it is not there.
pub fn lexical(path: &[u8]) -> Vec<u8> {
    if !path.starts_with(b"/") {
        return path.to_vec();
    }
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    let mut found = Vec::new();
    for name in names {
        found.push(b'/');
        found.extend_from_slice(name);
    }
    if found.is_empty() { b"/".to_vec() } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_name_is_followed_only_where_the_request_does() {
        for (path, itself, ask, last) in [
            ("/srv/a", false, "/srv/a", None),
            ("/srv/a", true, "/srv/", Some("a")),
            ("/srv/a/", true, "/srv/a", None),
            ("/srv/a/", false, "/srv/a", None),
            ("a", true, ".", Some("a")),
            ("a", false, "a", None),
            ("/", true, "/", None),
            ("", true, ".", None),
            ("/srv/..", true, "/srv/..", None),
            ("/srv/.", true, "/srv/.", None),
            ("/a", true, "/", Some("a")),
        ] {
            let found = resolve(path.as_bytes(), itself);
            assert_eq!(found.ask, ask.as_bytes(), "{path}");
            assert_eq!(found.last.as_deref(), last.map(str::as_bytes), "{path}");
        }
        assert_eq!(join(b"/srv", Some(b"a")), b"/srv/a");
        assert_eq!(join(b"/", Some(b"a")), b"/a");
    }

    #[test]
    fn dots_go_by_the_text_where_nothing_else_is_known() {
        for (path, expected) in
            [("/a/./b//c/../d", "/a/b/d"), ("/../..", "/"), ("a/../b", "a/../b"), ("/a/b/", "/a/b")]
        {
            assert_eq!(lexical(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }
}
