//! `cargo xtask bench --ssh`: OpenSSH's client to a real sshd, directly and through the gate.
//!
//! Method: that of the whole bench (see [`super`]): both ways in turn, ratios within a round, medians of the rounds. The
//! direct client has the server's key and a key of its own; through the gate it has neither. Output and input
//! of the commands are digested and recorded by the gate as always.
//!
//! Limits: client, gate and server share one machine, so that a way with twice the ciphers has half of it.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;

use super::cpu::{self, Spread};
use crate::lab::sshd::Site;
use crate::lab::{places, term};

/// What separates this part of docs/BENCHMARKS.md from MariaDB's.
pub(super) const MARK: &str = "\n# SSH\n";

/// Bytes of one transfer.
const BYTES: u64 = 500_000_000;
/// Keystrokes of one measurement.
const KEYS: usize = 400;
/// Connections of one measurement, and of the churn.
const CONNECTS: u32 = 20;
/// Connections of the churn.
const CHURN: u32 = 200;
/// Least throughput, of direct.
const THROUGHPUT_MIN: f64 = 0.5;
/// Most that a keystroke may take more than directly, in milliseconds.
const KEY_MS_MAX: f64 = 2.0;

/// Everything is permitted, and what commands write is told by its digest.
const POLICY: &str = r#"
permit (principal, action in [Action::"login", Action::"env", Action::"exec", Action::"shell"], resource == Target::"host");
"#;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// Bytes to the server.
    Up,
    /// Bytes from the server.
    Down,
    /// A keystroke and its echo on a terminal.
    Key,
    /// A connection that runs `true`.
    Connect,
}

impl Load {
    const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Key, Self::Connect];

    const fn name(self) -> &'static str {
        match self {
            Self::Up => "500 MB into `ssh host 'cat >/dev/null'`, MB/s",
            Self::Down => "500 MB out of `ssh host 'head -c 500000000 /dev/zero'`, MB/s",
            Self::Key => "keystroke on a terminal and its echo, ms (median of 400)",
            Self::Connect => "`ssh host true`, ms (mean of 20)",
        }
    }
}

/// One way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Gate,
}

struct Bench {
    site: Site,
}

/// Measures, and writes the part of docs/BENCHMARKS.md.
pub(super) fn run(rounds: u32, write: bool, force: bool) -> anyhow::Result<()> {
    let bench = Bench { site: Site::start(POLICY)? };
    let agent = bench.site.lab.agent()?.pid()?;
    let mut samples: Vec<(Load, Way, f64)> = Vec::new();
    let mut worst = 0.0_f64;
    for round in 1..=rounds {
        worst = worst.max(super::others(force)?);
        for load in Load::ALL {
            for way in [Way::Direct, Way::Gate] {
                let value = bench.measure(load, way)?;
                term::note(&format!("round {round} {way:?} {}: {value:.2}", load.name()));
                samples.push((load, way, value));
            }
        }
    }
    let before = cpu::memory_kib(&[agent])?;
    for _ in 0..CHURN {
        bench.connects(Way::Gate, 1)?;
    }
    let between = cpu::memory_kib(&[agent])?;
    for _ in 0..CHURN {
        bench.connects(Way::Gate, 1)?;
    }
    let after = cpu::memory_kib(&[agent])?;
    bench.site.finish()?;
    let text = report(&samples, rounds, worst, [before, between, after])?;
    term::line(&text);
    if !write {
        return Ok(());
    }
    let file = places::repository().join("docs/BENCHMARKS.md");
    let whole = fs::read_to_string(&file)?;
    let head = whole.split(MARK).next().unwrap_or_default().trim_end();
    fs::write(&file, format!("{head}\n{MARK}\n{text}"))?;
    term::note(&format!("wrote {}", file.display()));
    Ok(())
}

impl Bench {
    fn ssh(&self, way: Way) -> anyhow::Result<Command> {
        let mut ssh = match way {
            Way::Gate => self.site.client("/usr/bin/ssh", "-p")?,
            Way::Direct => {
                let at = |name: &str| self.site.dir.path().join(name).display().to_string();
                let mut ssh = Command::new("/usr/bin/ssh");
                ssh.args([
                    "-F",
                    "none",
                    "-o",
                    "StrictHostKeyChecking=yes",
                    "-o",
                    "BatchMode=yes",
                    "-o",
                ]);
                ssh.arg(format!("UserKnownHostsFile={}", at("known_hosts")));
                ssh.args(["-i", &at("identity"), "-p", &self.site.port.to_string()]);
                ssh
            }
        };
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(ssh)
    }

    fn measure(&self, load: Load, way: Way) -> anyhow::Result<f64> {
        match load {
            Load::Up => self.up(way),
            Load::Down => self.down(way),
            Load::Key => self.key(way),
            Load::Connect => self.connects(way, CONNECTS),
        }
    }

    fn up(&self, way: Way) -> anyhow::Result<f64> {
        let mut ssh = self.ssh(way)?.args(["root@127.0.0.1", "cat >/dev/null"]).spawn()?;
        let mut stdin = ssh.stdin.take().context("stdin is piped")?;
        let block = vec![b'x'; 1 << 20];
        let started = Instant::now();
        let mut left = BYTES;
        while left > 0 {
            let now = left.min(1 << 20);
            stdin.write_all(block.get(..usize::try_from(now)?).unwrap_or_default())?;
            left -= now;
        }
        drop(stdin);
        ended(&mut ssh)?;
        Ok(megabytes(started))
    }

    fn down(&self, way: Way) -> anyhow::Result<f64> {
        let command = format!("head -c {BYTES} /dev/zero");
        let mut ssh = self.ssh(way)?.args(["root@127.0.0.1", &command]).spawn()?;
        let mut stdout = ssh.stdout.take().context("stdout is piped")?;
        let started = Instant::now();
        let (mut block, mut got) = (vec![0; 1 << 20], 0_u64);
        loop {
            match stdout.read(&mut block)? {
                0 => break,
                count => got += u64::try_from(count)?,
            }
        }
        ended(&mut ssh)?;
        anyhow::ensure!(got == BYTES, "{got} bytes came");
        Ok(megabytes(started))
    }

    fn key(&self, way: Way) -> anyhow::Result<f64> {
        let command = "stty raw -echo; echo ready; exec cat";
        let mut ssh = self.ssh(way)?.args(["-tt", "root@127.0.0.1", command]).spawn()?;
        let mut stdin = ssh.stdin.take().context("stdin is piped")?;
        let mut stdout = ssh.stdout.take().context("stdout is piped")?;
        let mut seen = Vec::new();
        while !seen.ends_with(b"ready\n") && !seen.ends_with(b"ready\r\n") {
            let mut one = [0];
            stdout.read_exact(&mut one)?;
            seen.extend_from_slice(&one);
        }
        let mut took = Vec::new();
        for _ in 0..KEYS {
            let started = Instant::now();
            stdin.write_all(b"k")?;
            let mut one = [0];
            stdout.read_exact(&mut one)?;
            took.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        ssh.kill()?;
        ssh.wait()?;
        Ok(Spread::of(took).context("no keystroke")?.median)
    }

    fn connects(&self, way: Way, count: u32) -> anyhow::Result<f64> {
        let started = Instant::now();
        for _ in 0..count {
            let mut ssh = self.ssh(way)?.args(["root@127.0.0.1", "true"]).spawn()?;
            drop(ssh.stdin.take());
            ended(&mut ssh)?;
        }
        Ok(started.elapsed().as_secs_f64() * 1000.0 / f64::from(count))
    }
}

fn ended(ssh: &mut Child) -> anyhow::Result<()> {
    let status = ssh.wait()?;
    anyhow::ensure!(status.success(), "ssh ended with {status}");
    Ok(())
}

/// Megabytes a second since `started`.
fn megabytes(started: Instant) -> f64 {
    let bytes = u32::try_from(BYTES).map_or(0.0, f64::from);
    bytes / 1e6 / started.elapsed().as_secs_f64()
}

fn report(
    samples: &[(Load, Way, f64)],
    rounds: u32,
    worst: f64,
    [before, between, after]: [f64; 3],
) -> anyhow::Result<String> {
    let of = |load: Load, way: Way| -> Vec<f64> {
        samples.iter().filter(|one| (one.0, one.1) == (load, way)).map(|one| one.2).collect()
    };
    let mut text = format!(
        "OpenSSH's client and sshd on loopback, directly and through the gate, {rounds} rounds; others had at most {:.0} % of the \
         machine. Medians, with the least and the most; ratios are within a round. `cargo xtask bench --ssh`.\n\n\
         | load | direct | tidegate | tidegate / direct |\n| --- | --- | --- | --- |\n",
        worst * 100.0
    );
    let shown = |spread: Spread| {
        format!("{:.2} [{:.2} to {:.2}]", spread.median, spread.least, spread.most)
    };
    let mut floors = Vec::new();
    for load in Load::ALL {
        let (direct, gate) = (of(load, Way::Direct), of(load, Way::Gate));
        let ratios = gate.iter().zip(&direct).map(|(gate, direct)| gate / direct).collect();
        let more = gate.iter().zip(&direct).map(|(gate, direct)| gate - direct).collect();
        let spread = |values: Vec<f64>| Spread::of(values).context("nothing was measured");
        let (ratio, more) = (spread(ratios)?, spread(more)?);
        writeln!(
            text,
            "| {} | {} | {} | {} |",
            load.name(),
            shown(spread(direct)?),
            shown(spread(gate)?),
            shown(ratio)
        )?;
        let held = |holds: bool| if holds { "holds" } else { "MISSED" };
        match load {
            Load::Up | Load::Down => floors.push(format!(
                "{}: at least {THROUGHPUT_MIN} of direct: {:.2}, {}",
                load.name(),
                ratio.median,
                held(ratio.median >= THROUGHPUT_MIN)
            )),
            Load::Key => floors.push(format!(
                "keystroke: at most {KEY_MS_MAX} ms more than directly: {:.2}, {}",
                more.median,
                held(more.median <= KEY_MS_MAX)
            )),
            Load::Connect => {}
        }
    }
    writeln!(
        text,
        "\nMemory of the agent's own (RssAnon): {before:.0} KiB before, {between:.0} KiB after {CHURN} connections one after the \
         other, {after:.0} KiB after {CHURN} more.\n\nFloors:\n"
    )?;
    for floor in floors {
        writeln!(text, "- {floor}")?;
    }
    Ok(text)
}

/// The part of SSH of the file that is `whole`.
pub(super) fn behind(whole: &str) -> String {
    whole.split_once(MARK).map(|(_, part)| format!("\n{MARK}{part}")).unwrap_or_default()
}
