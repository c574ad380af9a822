//! The review pages in a real Chromium: the question of 02:15 by keyboard alone and without JavaScript,
//! axe on every page in light, dark and narrow, screenshots.
//!
//! Screenshots go to `target/lab/screenshots`, or where `TIDEGATE_SCREENSHOTS` says: those in
//! docs/screenshots are made anew with `TIDEGATE_SCREENSHOTS=docs/screenshots cargo xtask test --no-vm --
//! review_pages`, and made small with `pngquant --force --ext .png 64`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use xtask::lab::client::run;
use xtask::lab::places;

/// The demo collector, which ends when its stdin does.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // What it said, and whether it ended well, is of no interest any more.
        let _ended = self.0.wait();
    }
}

#[test]
fn review_pages_by_keyboard_alone_and_without_serious_findings() {
    let mut command = Command::new(places::our_program("examples/ui_demo").unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut demo = Demo(command.spawn().unwrap());
    let mut said = String::new();
    BufReader::new(demo.0.stdout.take().unwrap()).read_line(&mut said).unwrap();

    let pictures = match std::env::var_os("TIDEGATE_SCREENSHOTS") {
        Some(dir) => places::repository().join(dir),
        None => places::cache("screenshots").unwrap(),
    };
    std::fs::create_dir_all(&pictures).unwrap();
    let python = places::target().join("tools/venv/bin/python3");
    assert!(python.exists(), "no {}: run `cargo xtask setup test`", python.display());
    let mut browser = Command::new(python);
    browser.arg(places::repository().join("xtask/tests/browser/story.py"));
    browser.arg(said.trim()).arg(&pictures);
    let answer = run(&mut browser, b"").unwrap();
    assert!(answer.ok(), "{answer}");
    assert!(answer.stdout.ends_with("ok\n"), "{answer}");
    for name in ["ask", "session", "integrity", "exam"] {
        for scheme in ["light", "dark"] {
            let picture = pictures.join(format!("{name}-{scheme}.png"));
            assert!(picture.metadata().unwrap().len() > 10_000, "{}", picture.display());
        }
    }
}
