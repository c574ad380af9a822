//! Each rule with a sample that breaks it, and one that keeps it.

use std::path::{Path, PathBuf};

use super::{TextFile, docs, layers, source};

fn file(path: &str, text: &str) -> TextFile {
    TextFile { path: PathBuf::from(path), text: text.to_owned() }
}

#[track_caller]
fn check_rust(path: &str, text: &str, expected: &[&str]) {
    let found = source::check_rust(&file(path, text));
    let got: Vec<String> = found.iter().map(|f| format!("{}: {}", f.line, f.what)).collect();
    assert_eq!(got.len(), expected.len(), "{text}\n{got:?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.starts_with(expected), "{got} is not {expected}");
    }
}

#[test]
fn a_source_file_keeps_the_rules() {
    let long = |lines: usize| format!("//! Docs.\n{}", "fn f() {}\n".repeat(lines - 1));
    check_rust("a.rs", &long(600), &[]);
    check_rust("a.rs", &long(601), &["601: 601 lines, more than 600"]);
    check_rust("src/mod.rs", "//! Docs.\n", &["0: mod.rs"]);
    check_rust("a.rs", "fn f() {}\n", &["1: no module docs"]);
    check_rust("a.rs", "", &["1: no module docs"]);
    check_rust("x/tests/compile_fail/a.rs", "fn main() {}\n", &[]);
    check_rust("a.rs", "#![expect(x)]\n//! Docs.\n", &[]);
    for (code, expected) in [
        ("#[allow(dead_code)]", "2: #[allow]"),
        ("#![allow(dead_code)]", "2: #![allow]"),
        ("#[ignore = \"slow\"]", "2: #[ignore]"),
        ("todo!()", "2: todo!"),
        ("unimplemented!(\"x\")", "2: unimplemented!"),
        ("dbg!(x)", "2: dbg!"),
    ] {
        check_rust("a.rs", &format!("//! Docs.\n{code}\n"), &[expected]);
        check_rust("a.rs", &format!("//! Docs.\n// {code}\n"), &[]);
        check_rust("a.rs", &format!("//! Docs.\nf(r#\"{code}\"#);\n"), &[]);
    }
}

#[test]
fn a_library_prints_nothing() {
    for (name, expected) in [
        ("println!(\"x\")", "2: println!"),
        ("eprintln!()", "2: eprintln!"),
        ("print!(\"x\")", "2: print!"),
    ] {
        let text = format!("//! Docs.\n{name}\n");
        check_rust("crates/x/src/lib.rs", &text, &[expected]);
        check_rust("xtask/src/lib.rs", &text, &[]);
        check_rust("crates/x/tests/it.rs", &text, &[]);
    }
}

#[test]
fn only_capture_speaks_to_the_kernel() {
    let text = "//! Docs.\nuse aya::Ebpf;\n";
    check_rust("agent/src/gate.rs", text, &["2: aya: only"]);
    check_rust("agent/src/capture.rs", text, &[]);
    check_rust("agent/src/capture/maps.rs", text, &[]);
}

#[test]
fn lines_end_where_they_end() {
    let breaches = |text: &str| source::check_text(&file("a.md", text)).len();
    assert_eq!(breaches("a\nb\n"), 0);
    assert_eq!(breaches("a \nb\t\n"), 2);
    assert_eq!(breaches("a"), 1);
    assert_eq!(breaches(""), 0);
}

#[track_caller]
fn check_layers(path: &str, name: &str, rest: &str, expected: &[&str]) {
    let text = format!("[package]\nname = \"{name}\"\n{rest}\n");
    let found = layers::check(&[file(path, &text)]);
    let got: Vec<String> = found.iter().map(|f| format!("{}: {}", f.line, f.what)).collect();
    assert_eq!(got.len(), expected.len(), "{text}\n{got:?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.starts_with(expected), "{got} is not {expected}");
    }
}

#[test]
fn dependencies_run_down_only() {
    let needs = |what: &str| format!("[dependencies]\ntidegate-{what} = {{ workspace = true }}");
    for (name, dependency, expected) in [
        ("tidegate-journal", "policy", None),
        ("tidegate-policy", "journal", Some("4: tidegate-policy (layer 2) can't depend on")),
        ("tidegate-sql", "wire", Some("4: tidegate-sql (layer 1) can't depend on")),
        ("tidegate-wire-postgres", "sql", None),
        ("tidegate-agent", "collector", Some("4: tidegate-agent (layer 5) can't depend on")),
        ("tidegate-collector", "journal", Some("4: tidegate-collector can't depend on")),
        ("tidegate-collector", "agent-common", Some("4: tidegate-collector can't depend on")),
        ("tidegate-collector", "ledger", None),
        ("tidegate-ebpf", "agent-common", None),
        ("tidegate-ebpf", "event", Some("4: tidegate-ebpf can't depend on")),
        ("tidegate-agent", "testkit", Some("4: tidegate-testkit is for [dev-dependencies] only")),
        ("tidegate-agent", "news", Some("4: tidegate-news has no layer")),
        ("tidegate-news", "event", Some("2: tidegate-news has no layer")),
        ("xtask", "agent", None),
    ] {
        let expected: Vec<&str> = expected.into_iter().collect();
        check_layers("x/Cargo.toml", name, &needs(dependency), &expected);
    }
    let dev = "[dev-dependencies]\ntidegate-testkit = { workspace = true }";
    check_layers("x/Cargo.toml", "tidegate-segment", dev, &[]);
    let itself = "[dev-dependencies]\ntidegate-segment = { path = \".\", features = [\"os\"] }";
    check_layers("x/Cargo.toml", "tidegate-segment", itself, &[]);
    let build = "[build-dependencies]\ntidegate-agent = { workspace = true }";
    check_layers("x/Cargo.toml", "tidegate-event", build, &["4: tidegate-event (layer 0)"]);
}

#[test]
fn a_pure_crate_has_no_runtime() {
    let path = "crates/segment/Cargo.toml";
    let name = "tidegate-segment";
    check_layers(path, name, "[dependencies]\ntokio = \"1\"", &["4: tokio does IO"]);
    let optional = "[dependencies]\nnix = { workspace = true, optional = true }";
    check_layers(path, name, optional, &[]);
    assert_eq!(layers::check(&[file("x/Cargo.toml", "[package")]).len(), 1);
    assert_eq!(layers::check(&[file("Cargo.toml", "[workspace]\n")]).len(), 0);
}

#[test]
fn a_link_leads_somewhere() {
    let there = ["docs/a.md", "README.md", "docs"];
    let other = file("README.md", "# Read me, please\n");
    for (text, breaches) in [
        ("[x](a.md)", 0),
        ("[x](../README.md)", 0),
        ("[x](../README.md#read-me-please)", 0),
        ("[x](../README.md#missing)", 1),
        ("[x](#here)\n\n## Here", 0),
        ("[x](#there)", 1),
        ("[x](/README.md) and [y](b.md)", 1),
        ("[x](b.md \"title\")", 1),
        ("[x](https://example.org/b.md)", 0),
        ("`[x](b.md)`", 0),
        ("```\n[x](b.md)\n```", 0),
        ("```\n```\n[x](b.md)", 1),
    ] {
        let files = [file("docs/a.md", text), other.clone()];
        let [first, _] = &files;
        let exists = |path: &Path| there.iter().any(|known| Path::new(known) == path);
        assert_eq!(docs::check_links_with(first, &files, exists).len(), breaches, "{text}");
    }
}

#[test]
fn each_threat_names_its_test() {
    let table = |cell: &str| format!("| case | test |\n| --- | --- |\n| x | {cell} |\n");
    let code = file("a.rs", "//! fn in_a_comment\nfn the_test() {}\n");
    for (text, breaches) in [
        (table("`the_test`"), 0),
        (table("`a::tests::the_test`"), 0),
        (table("`the_test`, `gone`"), 1),
        (table("`in_a_comment`"), 1),
        (table("none: the kernel refuses it"), 0),
        (table("yes"), 1),
        (table(""), 1),
        ("| case | what |\n| --- | --- |\n| x | test |\n| x | y |\n".to_owned(), 0),
        (format!("{}\n{}", table("`the_test`"), table("no")), 1),
    ] {
        let files = [file("docs/THREATS.md", &text), code.clone()];
        assert_eq!(docs::check_threats(&files).len(), breaches, "{text}");
    }
    assert_eq!(docs::check_threats(&[file("docs/OTHER.md", &table("yes"))]).len(), 0);
}
