//! Where each statement's columns go, as a table of data.

#[path = "support/notation.rs"]
mod notation;

use notation::written;
use tidegate_sql::{Analyzer, Settings};

#[test]
fn every_row_has_the_lineage_that_it_says() {
    let analyzer = Analyzer::new();
    let lines: Vec<_> = include_str!("data/lineage.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert!(lines.len() >= 100, "{} rows", lines.len());
    let mut wrong = Vec::new();
    for line in lines {
        let mut parts = line.split(";;").map(str::trim);
        let text = parts.next().unwrap_or_default();
        let expected: [String; 3] =
            std::array::from_fn(|_| parts.next().unwrap_or_default().to_owned());
        let analysis = analyzer.analyze(text.as_bytes(), Settings::default());
        let is = written(&analysis.lineage);
        if is != expected {
            wrong.push(format!("{text} ;; {}", is.join(" ;; ")));
        }
    }
    assert!(wrong.is_empty(), "these rows read otherwise:\n{}", wrong.join("\n"));
}
