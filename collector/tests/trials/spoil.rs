//! The ways to spoil a log. Each says which entry is the first that is not as it was.

use std::path::Path;

use tidegate_segment::os::OsFiles;
use tidegate_segment::scan;

use crate::made::Made;
use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoil {
    Nothing,
    /// A bit of a frame, as a disk flips it.
    FlipInFile,
    /// A bit of an entry, with a new checksum.
    Flip,
    Delete,
    Insert,
    Swap,
    Truncate,
    /// The whole directory, checkpoints and all, as it was before.
    Rollback,
    /// The same keys, another history from some place on.
    Fork,
    /// Another history up to the end, signed anew in every place by the log's key.
    StolenKey,
}

/// Writes the spoilt log to `dir`; the first entry that differs.
pub fn spoil(how: Spoil, made: &Made, random: &mut Random, dir: &Path) -> u64 {
    let witness = made.witnessed();
    let by_log: Vec<String> = made.heads.iter().map(|(size, _)| made.note(*size)).collect();
    let mut other = made.clone();
    let count = made.frames.len();
    let at = match how {
        Spoil::Nothing => {
            other.write_own(dir, &witness);
            return 0;
        }
        Spoil::FlipInFile => {
            other.write_own(dir, &witness);
            return flip_in_file(&dir.join("log/seg"), random);
        }
        Spoil::Rollback => return roll_back(made, random, dir),
        Spoil::Fork => return fork(made, random, dir),
        Spoil::StolenKey => return sign_anew(made, random, dir),
        Spoil::Flip => {
            let at = random.below(count);
            let frame = &mut other.frames[at].1;
            let byte = random.below(frame.len());
            frame[byte] ^= 1 << random.below(8);
            at
        }
        Spoil::Delete => {
            let at = random.below(count);
            other.frames.remove(at);
            first_difference(made, &other)
        }
        Spoil::Insert => {
            let copied = other.frames[random.below(count)].clone();
            other.frames.insert(random.below(count), copied);
            first_difference(made, &other)
        }
        Spoil::Swap => {
            let one = random.below(count);
            let two = (one + 1 + random.below(count - 1)) % count;
            other.frames.swap(one, two);
            first_difference(made, &other)
        }
        Spoil::Truncate => {
            let at = random.below(count);
            other.frames.truncate(at);
            at
        }
    };
    other.write(dir, &by_log, &witness, &witness);
    u64::try_from(at).unwrap()
}

fn first_difference(one: &Made, two: &Made) -> usize {
    let same = one.frames.iter().zip(&two.frames).take_while(|(one, two)| one == two);
    same.count()
}

fn flip_in_file(segments: &Path, random: &mut Random) -> u64 {
    let frames = scan(OsFiles::read_only(segments).unwrap()).unwrap();
    let frames: Vec<_> = frames.map(Result::unwrap).collect();
    let frame = &frames[random.below(frames.len())];
    let path = segments.join(&*frame.file);
    let mut bytes = std::fs::read(&path).unwrap();
    // Length, checksum, kind, payload.
    let within = random.below(9 + frame.payload.len());
    bytes[usize::try_from(frame.offset).unwrap() + within] ^= 1 << random.below(8);
    std::fs::write(&path, bytes).unwrap();
    frame.index
}

/// The directory as it was at an older checkpoint; the witness has seen the newest.
fn roll_back(made: &Made, random: &mut Random, dir: &Path) -> u64 {
    let mut old = made.clone();
    old.heads.truncate(1 + random.below(made.heads.len() - 1));
    let (size, _) = *old.heads.last().unwrap();
    old.frames.truncate(size);
    old.write_own(dir, &made.witnessed());
    u64::try_from(size).unwrap()
}

/// From an older checkpoint on a second collector, with a copy of all keys, took other batches in.
fn fork(made: &Made, random: &mut Random, dir: &Path) -> u64 {
    let mut second = made.clone();
    second.heads.truncate(1 + random.below(made.heads.len() - 1));
    let (size, _) = *second.heads.last().unwrap();
    second.frames.truncate(size);
    second.stranger();
    let own = second.heads.len();
    for _ in 0..4 + random.below(8) {
        second.batch(random);
        second.heads.push((second.frames.len(), false));
    }
    let witness = made.witnessed();
    let by_log: Vec<String> = second.heads.iter().map(|(size, _)| second.note(*size)).collect();
    let cosigned = second.witnessed();
    assert!(second.heads[own..].iter().all(|(_, witnessed)| !witnessed));
    second.write(dir, &by_log, &cosigned, &witness);
    u64::try_from(size).unwrap()
}

/// A whole batch is taken out or moved, and every checkpoint is signed anew. Chains of agents can't be made to
/// fit, so the thief takes the end of one, which no seal shows; the witness's notes do.
fn sign_anew(made: &Made, random: &mut Random, dir: &Path) -> u64 {
    let mut other = made.clone();
    let seals: Vec<usize> = (0..made.frames.len()).filter(|at| made.frames[*at].0 == 2).collect();
    let chain = |frame: &[u8]| frame[4..36].to_vec();
    let gone = chain(&made.frames[seals[random.below(seals.len())]].1);
    if random.one_in(2) {
        // The chain's last batch and what follows it of that agent.
        let last = *seals.iter().rev().find(|at| chain(&made.frames[**at].1) == gone).unwrap();
        let before = seals.iter().rev().find(|at| **at < last).map_or(0, |at| at + 1);
        other.frames.drain(before..=last);
    } else {
        other.frames.retain(|(_, frame)| chain(frame) != gone);
    }
    let size = other.frames.len();
    other.heads.iter_mut().for_each(|(_, witnessed)| *witnessed = false);
    other.heads.retain(|(at, _)| *at <= size);
    other.heads.push((size, false));
    other.heads.dedup_by_key(|head| head.0);
    let at = first_difference(made, &other);
    other.write_own(dir, &made.witnessed());
    u64::try_from(at).unwrap()
}
