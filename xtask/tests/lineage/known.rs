//! Reads a catalogue from the server, as an agent does.

use tidegate_event::Relation;
use tidegate_sql::{Catalogue, KnownColumn, KnownFunction, KnownRelation, RelationKind};
use tokio_postgres::Client;

/// All relations. With an empty search path the server writes the names within a definition with
/// their schema.
const RELATIONS: &str = "
    select c.oid, n.nspname::text, c.relname::text, c.relkind::text, pg_get_viewdef(c.oid),
        array(select attname::text from pg_attribute a where a.attrelid = c.oid and attnum > 0
            and not attisdropped order by attnum),
        array(select attnum from pg_attribute a where a.attrelid = c.oid and attnum > 0
            and not attisdropped order by attnum),
        array(select atttypid from pg_attribute a where a.attrelid = c.oid and attnum > 0
            and not attisdropped order by attnum)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f')";

const FUNCTIONS: &str = "
    select p.oid, n.nspname::text, p.proname::text, l.lanname::text, p.prosrc
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
    where n.nspname not in ('pg_catalog', 'information_schema')";

pub async fn read(client: &Client) -> Catalogue {
    client.batch_execute("set search_path = ''").await.unwrap();
    let name = |schema: String, name: String| Relation { schema: Some(schema), name };
    let relations = client.query(RELATIONS, &[]).await.unwrap();
    let relations = relations.iter().map(|row| {
        let kind: String = row.get(3);
        let kind = match kind.as_str() {
            "v" => RelationKind::View,
            "m" => RelationKind::MaterializedView,
            "f" => RelationKind::Foreign,
            _ => RelationKind::Table,
        };
        let names: Vec<String> = row.get(5);
        let numbers: Vec<i16> = row.get(6);
        let types: Vec<u32> = row.get(7);
        let columns = names.into_iter().zip(numbers).zip(types);
        let columns = columns
            .map(|((name, number), type_oid)| KnownColumn {
                number,
                name,
                type_oid,
                generated: false,
            })
            .collect();
        KnownRelation {
            oid: row.get(0),
            name: name(row.get(1), row.get(2)),
            kind,
            columns,
            definition: row.get(4),
        }
    });
    let functions = client.query(FUNCTIONS, &[]).await.unwrap();
    let functions = functions.iter().map(|row| KnownFunction {
        oid: row.get(0),
        name: name(row.get(1), row.get(2)),
        language: row.get(3),
        source: row.get(4),
    });
    Catalogue::new(1, relations.collect(), functions.collect())
}
