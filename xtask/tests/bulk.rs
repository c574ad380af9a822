//! Bulk data streams through the gate; the agent's memory does not grow with it.

use std::path::Path;

use xtask::lab::client::run;
use xtask::lab::{Lab, Options, Who};

/// Rows of [`LINE_BYTES`] each: 72 MiB.
const ROWS: usize = 73_728;
const LINE_BYTES: usize = 1024;
/// The most that the agent's memory may grow by while all of it passes.
const GROWTH_BYTES_MAX: u64 = 48 * 1024 * 1024;

#[test]
fn copy_of_72_mib_each_way_is_counted_and_keeps_the_agent_small() {
    let lab = Lab::start(Options::default()).unwrap();
    lab.postgres
        .app("CREATE TABLE bulk (line text); ALTER TABLE bulk ALTER line SET STORAGE plain")
        .unwrap();
    assert!(lab.sql(Who::Service, &["SELECT 1"]).unwrap().ok());
    let before = lab.agent().unwrap().memory_bytes_max().unwrap();
    let line = format!("{}\n", "x".repeat(LINE_BYTES - 1));
    let copy_in = "COPY bulk FROM STDIN";
    let mut psql = lab.command(Who::Service, Path::new("/usr/bin/psql")).unwrap();
    psql.args(["-X", "-d", &lab.dsn(), "-c", copy_in]);
    let answer = run(&mut psql, line.repeat(ROWS).as_bytes()).unwrap();
    assert_eq!(answer.stdout, format!("COPY {ROWS}\n"), "{answer}");
    let copy_out = "COPY bulk TO STDOUT";
    let answer = lab.sql(Who::Service, &[copy_out]).unwrap();
    assert_eq!(answer.stdout.len(), ROWS * LINE_BYTES);
    let one_row = "SELECT string_agg(line, '') FROM bulk";
    let answer = lab.sql(Who::Service, &[one_row]).unwrap();
    assert_eq!(answer.stdout.len(), ROWS * (LINE_BYTES - 1) + 1);
    let after = lab.agent().unwrap().memory_bytes_max().unwrap();
    let growth = after.saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "the agent grew by {growth} bytes, from {before}");
    let evidence = lab.evidence().unwrap();
    let bytes = u64::try_from(ROWS * LINE_BYTES).unwrap();
    let copied = |text, field| evidence.finished(text).unwrap().number_of(field);
    assert_eq!(copied(copy_in, "copied_in"), Some(bytes));
    assert_eq!(copied(copy_out, "copied_out"), Some(bytes));
    lab.finish().unwrap();
}
