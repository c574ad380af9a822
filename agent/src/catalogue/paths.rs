//! In which schemas a session looks for a name (`search_path`).
//!
//! Promises: what is said of a session's path is what the server uses at its start. Where that can't be
//! told, names are looked up only where it does not matter.
//!
//! Known gaps: the server's default is taken from the catalogue's own account, which should have no
//! `search_path` of its own. Temporary relations come last, although the server looks there first: one
//! that hides another of its name is taken for the other.

use std::collections::{BTreeSet, HashMap, HashSet};

use tidegate_sql::Catalogue;

/// Longest search path that is read, in bytes.
const PATH_BYTES_MAX: usize = 4096;

/// How names are looked up in one database.
#[derive(Debug, Default)]
pub struct Paths {
    default: String,
    of_roles: HashMap<String, String>,
    temporary: Vec<String>,
    any: Vec<String>,
}

impl Paths {
    /// `default` is the `search_path` of a new session, `of_roles` that of roles with one of their own.
    pub fn new(catalogue: &Catalogue, default: String, of_roles: HashMap<String, String>) -> Self {
        let schemas: BTreeSet<&String> =
            catalogue.relations().filter_map(|known| known.name.schema.as_ref()).collect();
        let (temporary, lasting): (Vec<&String>, Vec<&String>) =
            schemas.into_iter().partition(|schema| schema.starts_with("pg_temp_"));
        let temporary: Vec<String> = temporary.into_iter().cloned().collect();
        let lasting: Vec<String> =
            lasting.into_iter().filter(|schema| !is_system(schema)).cloned().collect();
        let any = if are_unique(catalogue, &lasting) {
            lasting.into_iter().chain(temporary.iter().cloned()).collect()
        } else {
            Vec::new()
        };
        Self { default, of_roles, temporary, any }
    }

    /// The path of a session of `user` that has not set another.
    pub fn of(&self, user: &str) -> Vec<String> {
        let path = self.of_roles.get(user).unwrap_or(&self.default);
        let Some(mut path) = parse(path, user) else { return self.any() };
        path.extend(self.temporary.iter().cloned());
        path
    }

    /// A path for a session of which it is not known: it finds every relation where no two schemas have
    /// one of the same name, and nothing otherwise.
    pub fn any(&self) -> Vec<String> {
        self.any.clone()
    }
}

fn is_system(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema" | "pg_toast")
}

fn are_unique(catalogue: &Catalogue, schemas: &[String]) -> bool {
    let mut names = HashSet::new();
    let lasting =
        |schema: &Option<String>| schema.as_ref().is_some_and(|one| schemas.contains(one));
    let mut all = catalogue.relations().filter(|known| lasting(&known.name.schema));
    all.all(|known| names.insert(known.name.name.as_str()))
}

/// The schemas that `path` names, in order; `None` where it can't be read.
fn parse(path: &str, user: &str) -> Option<Vec<String>> {
    if path.len() > PATH_BYTES_MAX {
        return None;
    }
    let mut schemas = Vec::new();
    let mut rest = path.trim_start();
    while !rest.is_empty() {
        let (name, behind) = crate::config::masking::identifier(rest)?;
        match name.as_str() {
            "" if !rest.starts_with('"') => return None,
            // An empty name in quotes is how an empty path is written.
            "" => {}
            "$user" => schemas.push(user.to_owned()),
            _ => schemas.push(name),
        }
        rest = behind.trim_start();
        match rest.strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None if rest.is_empty() => break,
            None => return None,
        }
    }
    Some(schemas)
}

#[cfg(test)]
mod tests {
    use tidegate_event::Relation;
    use tidegate_sql::{KnownRelation, RelationKind};

    use super::*;

    fn paths(relations: &[(&str, &str)]) -> Paths {
        let known = relations.iter().zip(1..).map(|((schema, name), oid)| KnownRelation {
            oid,
            name: Relation { schema: Some((*schema).to_owned()), name: (*name).to_owned() },
            kind: RelationKind::Table,
            columns: Vec::new(),
            definition: None,
        });
        let catalogue = Catalogue::new(1, known.collect(), Vec::new());
        let of_roles = HashMap::from([("other".to_owned(), "own".to_owned())]);
        Paths::new(&catalogue, "\"$user\", public".to_owned(), of_roles)
    }

    #[test]
    fn a_path_is_that_of_the_user_and_then_temporary_relations() {
        let paths = paths(&[("public", "a"), ("pg_temp_3", "b"), ("pg_catalog", "c"), ("x", "d")]);
        assert_eq!(paths.of("app"), ["app", "public", "pg_temp_3"]);
        assert_eq!(paths.of("other"), ["own", "pg_temp_3"]);
        assert_eq!(paths.any(), ["public", "x", "pg_temp_3"]);
    }

    #[test]
    fn an_unknown_path_finds_nothing_where_it_would_matter() {
        assert_eq!(paths(&[("public", "a"), ("x", "a")]).any(), Vec::<String>::new());
        assert_eq!(paths(&[("public", "a"), ("pg_temp_1", "a")]).any(), ["public", "pg_temp_1"]);
    }

    #[test]
    fn paths_are_read_as_the_server_writes_them() {
        for (text, expected) in [
            ("a, b", Some("a b")),
            ("\"A b\",c", Some("A b c")),
            ("\"$user\", public", Some("me public")),
            ("\"\"", Some("")),
            ("", Some("")),
            ("a b", None),
            ("a,,b", None),
            ("'a'", None),
        ] {
            let got = parse(text, "me").map(|schemas| schemas.join(" "));
            assert_eq!(got.as_deref(), expected, "{text}");
        }
    }
}
