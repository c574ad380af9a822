//! How relations, functions and schemas are written as Cedar entity ids.
//!
//! `target/name`, `target/schema.name`; for schemas `target/schema`; for columns
//! `target/relation.column`, `target/schema.relation.column`. A part that holds a dot, slash or
//! double quote stands in double quotes, doubled inside, so that no two names of a kind share an id.

/// One part of an id.
fn part(name: &str) -> String {
    if name.is_empty() || name.contains(['.', '/', '"']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

/// Id of a relation or function.
pub(crate) fn object(target: &str, schema: Option<&str>, name: &str) -> String {
    match schema {
        Some(schema) => format!("{}/{}.{}", part(target), part(schema), part(name)),
        None => format!("{}/{}", part(target), part(name)),
    }
}

/// Id of a column.
pub(crate) fn column(target: &str, schema: Option<&str>, relation: &str, name: &str) -> String {
    format!("{}.{}", object(target, schema, relation), part(name))
}

/// Id of a schema.
pub(crate) fn schema(target: &str, schema: &str) -> String {
    format!("{}/{}", part(target), part(schema))
}

/// An id taken apart: target, then one or two names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) target: String,
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

/// Reads the id of a relation, function or schema back; `None` when it isn't written as promised.
pub(crate) fn parse(id: &str) -> Option<Parts> {
    let (target, names) = split(id)?;
    let mut names = names.into_iter();
    match (names.next()?, names.next(), names.next()) {
        (name, None, _) => Some(Parts { target, schema: None, name }),
        (schema, Some(name), None) => Some(Parts { target, schema: Some(schema), name }),
        _ => None,
    }
}

/// Reads a column's id back, into its relation and its name; `None` when it isn't written as promised.
pub(crate) fn parse_column(id: &str) -> Option<(Parts, String)> {
    let (target, names) = split(id)?;
    let mut names = names.into_iter();
    match (names.next()?, names.next()?, names.next(), names.next()) {
        (name, column, None, _) => Some((Parts { target, schema: None, name }, column)),
        (schema, name, Some(column), None) => {
            Some((Parts { target, schema: Some(schema), name }, column))
        }
        _ => None,
    }
}

/// The target, and the names behind it.
fn split(id: &str) -> Option<(String, Vec<String>)> {
    let (target, rest) = take(id)?;
    let (first, mut rest) = take(rest.strip_prefix('/')?)?;
    let mut names = vec![first];
    while !rest.is_empty() {
        let (name, behind) = take(rest.strip_prefix('.')?)?;
        names.push(name);
        rest = behind;
    }
    Some((target, names))
}

fn take(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        return tidegate_event::unquote(quoted);
    }
    let end = text.find(['.', '/', '"']).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    (!name.is_empty() && !rest.starts_with('"')).then(|| (name.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_and_none_is_shared() {
        let names = ["a", "a.b", "a/b", "\"", "a\"b", "größe", ""];
        let mut seen = std::collections::BTreeSet::new();
        for target in names {
            for name in names {
                for schema in names.map(Some).into_iter().chain([None]) {
                    let id = object(target, schema, name);
                    let parts = parse(&id).unwrap();
                    assert_eq!(
                        (parts.target.as_str(), parts.schema.as_deref(), parts.name.as_str()),
                        (target, schema, name),
                        "{id}"
                    );
                    assert!(seen.insert(id));
                }
            }
        }
        for wrong in ["", "a", "a/", "/a", "a/b.", "a/b.c.d", "a/b/c", "a/\"b", "a/b\"c\"", "a.b"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for (id, schema, expected) in [
            ("l/t.c", None, ("t", "c")),
            ("l/s.t.c", Some("s"), ("t", "c")),
            ("l/\"s.x\".t.\"c/d\"", Some("s.x"), ("t", "c/d")),
        ] {
            let (parts, column) = parse_column(id).unwrap();
            assert_eq!(parts.schema.as_deref(), schema, "{id}");
            assert_eq!((parts.name.as_str(), column.as_str()), expected, "{id}");
        }
        assert_eq!(column("l", Some("s.x"), "t", "c/d"), "l/\"s.x\".t.\"c/d\"");
        for wrong in ["l/c", "l/a.b.c.d", "l/a.b.", "l"] {
            assert_eq!(parse_column(wrong), None, "{wrong}");
        }
    }
}
