//! The analyser against the server: what `EXPLAIN (VERBOSE)` names, the analyser names too.
//!
//! Promises: for queries made by seed over tables, views and functions, every relation of the plan
//! is among the effects, every column that a top output shows is among that output's sources, and
//! every column of the plan's conditions and keys is among the filters. Outputs have the names and the
//! number that the server gives them. What tools ask of the system's
//! own relations reads the same with the server's catalogue as without.
//!
//! Limits: an output that refers to another node by a name of its own is not read. `QUERIES` queries
//! of one seed; `TIDEGATE_LINEAGE_SEED` and `TIDEGATE_LINEAGE_QUERIES` ask for others.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "lineage/known.rs"]
mod known;
#[path = "lineage/make.rs"]
mod make;
#[path = "lineage/plan.rs"]
mod plan;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tidegate_event::{Analysis, ColumnRef, Output, Relation, Rows};
use tidegate_sql::{Analyzer, Catalogue, Settings};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use xtask::lab::{Lab, Options, PostgresOptions};

/// Queries of the ordinary run.
const QUERIES: u64 = 1_500;

/// What at least one query that the server understands must hold: else its kind is not compared.
const KINDS: [&str; 14] = [
    "with recursive r as",
    "with recursive r(s, t)",
    "select * from a",
    "grouping sets",
    "rollup",
    "distinct on",
    "natural join",
    "merge into",
    "on conflict",
    "with d as (delete",
    "within group",
    "xmlelement",
    "rows between",
    "jsonb_build_object",
];

/// Those that the server must understand, in percent: else little is compared.
const UNDERSTOOD_PERCENT_MIN: u64 = 60;

const SCHEMA: &str = "
    create table public.customers (id int primary key, name text, ssn text, card text, city text);
    create table public.orders (id int primary key, customer_id int, total int, status text, ref text);
    create table public.items (id int, order_id int, sku text, price int);
    create schema other;
    create table other.notes (id int, body text, name text);
    create view public.people as select c.id, c.name, c.ssn as number from public.customers c where c.city <> 'x';
    create view public.big as select o.id, o.total, p.number, p.name as who
        from public.orders o join public.people p on p.id = o.customer_id;
    create view other.sums as select order_id, sum(price) as total, max(sku) as sku from public.items group by order_id;
    create view public.both as select name, city from public.customers union all select body, name from other.notes;
    create function public.twice(x int) returns int language sql as 'select x * 2';
    create function public.numbers() returns setof text language sql stable as 'select c.ssn from public.customers c';
";

#[tokio::test]
async fn what_a_plan_names_the_analyser_names() {
    let lab = Lab::prepare(Options { postgres: PostgresOptions::default(), ..Options::default() });
    let lab = lab.unwrap();
    let told = compare(&format!(
        "host=127.0.0.1 port={} user=app dbname=app{}",
        lab.postgres.port(),
        lab.postgres.dsn_tail()
    ))
    .await;
    lab.discard().unwrap();
    assert!(told.is_empty(), "{told}");
}

fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

/// What tools ask of the system's own relations must not become opaque, or do more, when the views
/// among these are in the catalogue.
fn tools(analyzer: &Analyzer, catalogue: &Catalogue) -> String {
    let path = ["public".to_owned()];
    let lines = include_str!("../../crates/sql/tests/data/benign.txt").lines();
    let plain = lines.filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (text, rest) = line.split_once(" ;; ")?;
        rest.starts_with("- ;;").then_some(text)
    });
    let (mut wrong, mut compared) = (String::new(), 0);
    for text in plain {
        let before = analyzer.analyze(text.as_bytes(), Settings::default());
        let system = |named: &Relation| {
            named.name.starts_with("pg_")
                || matches!(named.schema.as_deref(), Some("pg_catalog" | "information_schema"))
        };
        let relations = before.effects.iter().filter_map(|effect| effect.relation.as_ref());
        if !relations.clone().all(system) || relations.count() == 0 {
            continue;
        }
        compared += 1;
        let after = analyzer.resolve(text.as_bytes(), Settings::default(), catalogue, &path);
        let actions = |analysis: &Analysis| -> BTreeSet<_> {
            analysis.effects.iter().map(|effect| effect.action).collect()
        };
        let opaque = format!("{:?}", after.lineage).contains("opaque: Some");
        if actions(&before) != actions(&after) || opaque {
            writeln!(wrong, "{text}\n    {:?}", after.lineage).unwrap();
        }
    }
    assert!(compared > 50, "only {compared} statements ask the system's relations");
    wrong
}

async fn compare(dsn: &str) -> String {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(SCHEMA).await.unwrap();
    let catalogue = known::read(&client).await;
    client.batch_execute("set search_path = public, other").await.unwrap();
    let queries = asked("TIDEGATE_LINEAGE_QUERIES", QUERIES);
    let mut make = make::Make::new(asked("TIDEGATE_LINEAGE_SEED", 1));
    let analyzer = Analyzer::new();
    let mut unseen = KINDS.to_vec();
    let (mut understood, mut wrong, mut found) = (0, tools(&analyzer, &catalogue), 0);
    for _ in 0..queries {
        let query = make.query();
        let Some(plan) = explained(&client, &query).await else { continue };
        understood += 1;
        unseen.retain(|kind| !query.contains(kind));
        let described = client.prepare(&query).await.unwrap();
        let names = described.columns().iter();
        let names: Vec<_> = names.map(|column| column.name().to_owned()).collect();
        for difference in differences(&query, &plan, &names, &analyzer, &catalogue) {
            found += 1;
            if found <= 10 {
                writeln!(wrong, "{query}\n    {difference}").unwrap();
            }
        }
    }
    drop(client);
    connection.await.unwrap().unwrap();
    if understood * 100 < queries * UNDERSTOOD_PERCENT_MIN {
        writeln!(wrong, "the server understood {understood} of {queries}").unwrap();
    }
    if !unseen.is_empty() {
        writeln!(wrong, "the server understood no query with {unseen:?}").unwrap();
    }
    if found > 0 {
        writeln!(wrong, "{understood} of {queries} queries compared, {found} differences").unwrap();
    }
    wrong
}

async fn explained(client: &Client, query: &str) -> Option<plan::Plan> {
    let asked = client.simple_query(&format!("explain (verbose, format json) {query}")).await;
    let text: String = asked
        .ok()?
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    Some(plan::Plan::read(&serde_json::from_str(&text).unwrap()))
}

fn differences(
    query: &str,
    plan: &plan::Plan,
    names: &[String],
    analyzer: &Analyzer,
    catalogue: &Catalogue,
) -> Vec<String> {
    let path = ["public".to_owned(), "other".to_owned()];
    let analysis = analyzer.resolve(query.as_bytes(), Settings::default(), catalogue, &path);
    let mut found = Vec::new();
    if let Some(unknown) = &analysis.unknown {
        // Nesting that the decoder of the tree doesn't follow is refused, which is safe.
        if !unknown.reason.contains("nested too deep") {
            found.push(format!("unknown: {}", unknown.reason));
        }
        return found;
    }
    for relation in &plan.relations {
        let mut effects = analysis.effects.iter().filter_map(|effect| effect.relation.as_ref());
        if !effects.any(|on| on.to_string() == *relation) {
            found.push(format!("{relation} is no effect"));
        }
    }
    let filters = written(&analysis.lineage.filters);
    if analysis.lineage.filters_opaque.is_none() {
        let missing = plan.conditions.difference(&filters);
        found.extend(missing.map(|column| format!("{column} is no filter")));
    }
    found.extend(outputs(plan, names, &analysis));
    found
}

fn outputs(plan: &plan::Plan, names: &[String], analysis: &Analysis) -> Vec<String> {
    if analysis.lineage.rows == [Rows::None] && names.is_empty() {
        return Vec::new();
    }
    let [Rows::Known(outputs)] = analysis.lineage.rows.as_slice() else {
        return vec![format!("rows are {:?}", analysis.lineage.rows)];
    };
    if outputs.iter().any(|output| matches!(output, Output::Several(_) | Output::Star(_))) {
        // Which column is which isn't told: all of them together must hold what the plan shows.
        let sources: BTreeSet<_> = outputs.iter().flat_map(sources).collect();
        let planned = plan.outputs.iter().flatten();
        // Keys to sort by stand among the plan's outputs.
        let missing = planned
            .filter(|column| !sources.contains(*column) && !plan.conditions.contains(*column));
        return missing.map(|column| format!("{column} is no source of any output")).collect();
    }
    if outputs.len() != names.len() {
        return vec![format!("the server returns {names:?}")];
    }
    for (output, theirs) in outputs.iter().zip(names) {
        if let Output::One { name: Some(ours), .. } = output
            && ours != theirs
        {
            return vec![format!("{ours} has the name {theirs}")];
        }
    }
    if plan.outputs.len() < outputs.len() {
        return vec![format!("the plan has {} columns: {outputs:?}", plan.outputs.len())];
    }
    // The plan's further outputs are for itself: keys to sort by.
    let pairs = outputs.iter().zip(&plan.outputs).enumerate();
    let missing = pairs.flat_map(|(at, (output, planned))| {
        let opaque = matches!(output, Output::One { sources, .. } if sources.opaque.is_some());
        let sources = if opaque { planned.clone() } else { sources(output) };
        let missing: Vec<_> = planned.difference(&sources).cloned().collect();
        missing.into_iter().map(move |column| format!("{column} is no source of output {at}"))
    });
    missing.collect()
}

fn sources(output: &Output) -> BTreeSet<String> {
    match output {
        Output::One { sources, .. } | Output::Several(sources) => written(&sources.columns),
        Output::Star(_) => BTreeSet::new(),
    }
}

fn written(columns: &BTreeSet<ColumnRef>) -> BTreeSet<String> {
    let written = columns
        .iter()
        .map(|column| format!("{}.{}", column.relation, column.column.as_deref().unwrap_or("*")));
    written.collect()
}
