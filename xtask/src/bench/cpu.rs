//! CPU, memory and disk, as the kernel accounts them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// The kernel accounts CPU in these (`USER_HZ`, 100 on every Linux that matters; proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;
/// Writes whose sync is timed.
const SYNCS: u32 = 200;
/// Bytes of each such write: about one group of records.
const SYNC_BYTES: usize = 1024;

/// Least, middle, most.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// The median.
    pub median: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of some numbers; `None` for none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(upper, *values.get(middle.checked_sub(1)?)?)
        } else {
            upper
        };
        Some(Self { least: *values.first()?, median, most: *values.last()? })
    }
}

/// CPU seconds of processes and of their ended children.
pub fn seconds(pids: &[u32]) -> anyhow::Result<f64> {
    let mut ticks = 0.0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid} is gone"))?;
        // The command name may hold anything, and ends at the last parenthesis (proc(5)).
        let (_, fields) = stat.rsplit_once(')').context("a stat line without a name")?;
        // utime, stime, cutime, cstime are fields 14 to 17; state is field 3.
        let times = fields.split_whitespace().skip(11).take(4);
        ticks += times.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(ticks / TICKS_PER_SECOND)
}

/// Resident memory of processes that is their own (`RssAnon`), in KiB.
pub fn memory_kib(pids: &[u32]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let number = field.and_then(|rest| rest.split_whitespace().next()).context("no RssAnon")?;
        sum += number.parse::<f64>()?;
    }
    Ok(sum)
}

/// The share of the machine that is used while we do nothing for `wait`.
pub fn others_share(wait: Duration) -> anyhow::Result<f64> {
    let before = machine_ticks()?;
    std::thread::sleep(wait);
    let after = machine_ticks()?;
    let (busy, all) = (after.0 - before.0, after.1 - before.1);
    Ok(if all > 0.0 { busy / all } else { 0.0 })
}

/// Busy and all ticks of all processors since boot.
fn machine_ticks() -> anyhow::Result<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("an empty /proc/stat")?;
    let fields = line.split_whitespace().skip(1).filter_map(|field| field.parse::<f64>().ok());
    let fields = fields.collect::<Vec<_>>();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let all = fields.iter().take(8).sum::<f64>();
    let idle = fields.iter().skip(3).take(2).sum::<f64>();
    Ok((all - idle, all))
}

/// How long `fdatasync` takes after a small append, in microseconds.
pub fn sync_times_us(dir: &Path) -> anyhow::Result<Spread> {
    fs::create_dir_all(dir)?;
    let path = dir.join("sync-probe");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        file.write_all(&[0x55; SYNC_BYTES])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(path)?;
    Spread::of(times).context("no syncs were timed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        let median = |values: &[f64]| Spread::of(values.to_vec()).map(|spread| spread.median);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn own_processor_time_is_seen() {
        let start = Instant::now();
        let pid = [std::process::id()];
        let before = seconds(&pid).unwrap();
        let mut sum = 0_u64;
        while start.elapsed() < Duration::from_millis(300) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(sum > 0 && seconds(&pid).unwrap() > before);
        assert!(memory_kib(&pid).unwrap() > 0.0);
    }
}
