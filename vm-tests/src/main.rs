//! PID 1 of the test machine that `cargo xtask vm` boots.
//!
//! Promises: mounts what the agent needs, runs the main job on this kernel, says exactly one verdict
//! line (`vm-tests: pass` or `vm-tests: FAIL` and why) and powers the machine off. The host demands
//! that line, so a kernel that panics or hangs is a failure too.
//!
//! Cannot do: run anywhere but as PID 1 of a machine that may be thrown away.

mod machine;
mod story;

use std::io::Write as _;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(story::SAY) {
        std::process::exit(story::say_on_stdin());
    }
    if std::process::id() != 1 {
        say("this is PID 1 of a test machine: boot it with `cargo xtask vm`");
        std::process::exit(2);
    }
    let verdict = match machine::bring_up().and_then(|()| story::tell()) {
        Ok(()) => "vm-tests: pass".to_owned(),
        Err(error) => {
            machine::show_logs();
            let why = format!("{error:#}").replace(['\n', '\r'], " | ");
            format!("vm-tests: FAIL {why}")
        }
    };
    say(&verdict);
    machine::power_off();
}

/// One line on the console.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// One line of progress on the console.
fn step(text: &str) {
    say(&format!("vm-step: {text}"));
}
