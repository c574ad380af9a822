//! Finds what a directory of segments holds, where it ends, and whether anything durable is missing.
//!
//! Promises: reads only. Damage is told from a torn tail by evidence, not by guess: a frame that is missing or bad is
//! damage if anything that survived says that it had been durable (a later segment's header, a mark behind it, or the
//! caller's own floor), and the torn tail of a crash otherwise. Only the segments that can hold frames not proven
//! durable are read whole; older ones are checked when they are read, or by `scan`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Damage, Error};
use crate::files::{File, Files};
use crate::format::{FRAME_HEAD_BYTES, HEADER_BYTES, MARK_KIND, mark_durable, push_frame};
use crate::frames::{Frames, Step, look_behind, read_header};
use crate::view::{Segment, View, name_of, ordinal_of};

/// What opening a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The index that the next frame gets; the last good frame is the one before it.
    pub next_index: u64,
    /// The oldest frame kept.
    pub oldest_index: u64,
    /// Frames below this were proven durable by what was found; those from here on were written, and are durable now.
    pub proven_index: u64,
    /// Bytes behind the last good frame that were cut.
    pub lost_bytes: u64,
    /// Where they began.
    pub torn: Option<Torn>,
    /// The log was closed in order: nothing cut, nothing that had to be written again.
    pub clean: bool,
    /// There was no log; this is a new one.
    pub created: bool,
}

/// Where a torn tail begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file.
    pub file: String,
    /// The offset of the first byte that is no good frame.
    pub offset: u64,
    /// The frame that would have been there.
    pub index: u64,
}

/// All segments of a directory.
pub(crate) struct Survey {
    pub view: View,
    pub owner: Option<[u8; 32]>,
    /// Frames below this were durable, as the headers say.
    pub durable: u64,
    pub next_ordinal: u64,
    pub names: Vec<String>,
}

/// Reads all headers. A segment gets its name only after its header is durable, so a bad header is damage.
pub(crate) fn survey<F: Files>(files: &F) -> Result<Survey, Error> {
    let names = files.list().map_err(|error| Error::io("list", "the directory", error))?;
    let mut ordinals: Vec<u64> = names.iter().filter_map(|name| ordinal_of(name)).collect();
    ordinals.sort_unstable();
    let mut survey =
        Survey { view: View::default(), owner: None, durable: 0, next_ordinal: 0, names };
    for ordinal in ordinals {
        let name = name_of(ordinal);
        let file = files.open(&name).map_err(|error| Error::io("open", &name, error))?;
        let read = read_header(&file).map_err(|error| Error::io("read", &name, error))?;
        let bytes = file.len().map_err(|error| Error::io("measure", &name, error))?;
        let damage = |index: u64, what: &str| {
            Error::Damaged(Damage { file: name.clone(), offset: 0, index, what: what.to_owned() })
        };
        let header = read.map_err(|what| damage(0, what))?;
        if header.ordinal != ordinal {
            return Err(damage(header.first, "the header belongs to another file name"));
        }
        if header.durable > header.first {
            return Err(damage(header.first, "the header says more durable than there was"));
        }
        if *survey.owner.get_or_insert(header.owner) != header.owner {
            return Err(damage(header.first, "the segment belongs to another owner"));
        }
        survey.durable = survey.durable.max(header.durable);
        survey.next_ordinal = ordinal + 1;
        survey.view.add(Arc::new(Segment::new(ordinal, header.first, bytes)));
    }
    Ok(survey)
}

/// Where a log ends.
pub(crate) struct Tail<H> {
    /// Index after the last good frame.
    pub next: u64,
    /// Frames below this are durable for certain.
    pub proven: u64,
    /// The frames from `proven` on, encoded.
    pub kept: Vec<u8>,
    /// Marks behind the last frame, encoded. The medium may not have them.
    pub marks: Vec<u8>,
    pub torn: Option<Torn>,
    pub lost_bytes: u64,
    /// The segment where the last good frame is, open, and the offset behind that frame.
    pub segment: Arc<Segment>,
    pub file: H,
    pub offset: u64,
    /// Nothing is behind the last frame, and all before it is durable: the segment can be filled further.
    pub clean: bool,
}

/// Walks the segments that may hold frames not proven durable. `None`: there are no segments.
pub(crate) fn find_tail<F: Files>(
    files: &F,
    survey: &Survey,
    owner: &[u8; 32],
    floor: u64,
) -> Result<Option<Tail<F::File>>, Error> {
    let all = survey.view.all();
    let live: Vec<_> = all.iter().filter(|segment| segment.first < segment.end()).collect();
    let Some(oldest) = live.first() else {
        return Ok(None);
    };
    let durable = survey.durable.max(floor).max(oldest.first);
    let start = live.partition_point(|segment| segment.first <= durable).saturating_sub(1);
    let mut walk = Walk::new(*owner, durable);
    for (at, segment) in live.iter().enumerate().skip(start) {
        walk.index = segment.first;
        let (frames, ended) = walk.segment(files, segment)?;
        if let Some(what) = ended {
            let later = all.iter().filter(|later| later.ordinal > segment.ordinal);
            return walk.end(files, segment, frames, what, later).map(Some);
        }
        if at + 1 == live.len() {
            // A newest segment without an end cannot be complete.
            break;
        }
    }
    Ok(None)
}

struct Walk {
    owner: [u8; 32],
    index: u64,
    durable: u64,
    kept: Vec<u8>,
    marks: Vec<u8>,
    /// Encoded lengths of the frames in `kept`; the first of them is frame `durable`.
    lens: VecDeque<usize>,
}

/// Why a segment stopped before its end.
struct Stop {
    what: &'static str,
    bad: bool,
}

impl Walk {
    fn new(owner: [u8; 32], durable: u64) -> Self {
        Self {
            owner,
            index: 0,
            durable,
            kept: Vec::new(),
            marks: Vec::new(),
            lens: VecDeque::new(),
        }
    }

    /// Reads one segment up to where the next one takes over.
    fn segment<F: Files>(
        &mut self,
        files: &F,
        segment: &Segment,
    ) -> Result<(Frames<F::File>, Option<Stop>), Error> {
        let open = files.open(&segment.name);
        let file = open.map_err(|error| Error::io("open", &*segment.name, error))?;
        let mut frames = Frames::new(file, HEADER_BYTES);
        self.marks.clear();
        while self.index < segment.end() {
            let step = frames.step();
            match step.map_err(|error| Error::io("read", &*segment.name, error))? {
                Step::Frame { kind: MARK_KIND, payload, .. } => {
                    let payload = frames.payload(payload);
                    push_frame(&mut self.marks, MARK_KIND, payload);
                    let mark = mark_durable(payload, &self.owner);
                    self.prove(mark.filter(|&mark| mark <= self.index).unwrap_or(0));
                }
                Step::Frame { kind, payload, offset } => {
                    segment.note_place(self.index, offset);
                    self.marks.clear();
                    if self.index >= self.durable {
                        let payload = frames.payload(payload);
                        push_frame(&mut self.kept, kind, payload);
                        self.lens.push_back(FRAME_HEAD_BYTES + payload.len());
                    }
                    self.index += 1;
                }
                Step::End => {
                    return Ok((frames, Some(Stop { what: "the frame is missing", bad: false })));
                }
                Step::Bad { what, .. } => return Ok((frames, Some(Stop { what, bad: true }))),
            }
        }
        Ok((frames, None))
    }

    /// Frames below `durable` need not be kept.
    fn prove(&mut self, durable: u64) {
        let mut drop = 0;
        while self.durable < durable {
            drop += self.lens.pop_front().unwrap_or(0);
            self.durable += 1;
        }
        self.kept.drain(..drop.min(self.kept.len()));
    }

    fn end<'a, F: Files>(
        mut self,
        files: &F,
        segment: &Arc<Segment>,
        frames: Frames<F::File>,
        Stop { what, bad }: Stop,
        later: impl Iterator<Item = &'a Arc<Segment>>,
    ) -> Result<Tail<F::File>, Error> {
        let (next, offset) = (self.index, frames.offset());
        let (proven, lost_bytes) =
            evidence(files, segment, frames.file(), offset, &self.owner, later)?;
        let durable = self.durable.max(proven);
        if durable > next {
            return Err(Error::Damaged(Damage {
                file: segment.name.to_string(),
                offset,
                index: next,
                what: format!("{what}, and frames below {durable} had been durable"),
            }));
        }
        self.prove(proven);
        let cut = bad || lost_bytes > 0;
        let torn = cut.then(|| Torn { file: segment.name.to_string(), offset, index: next });
        Ok(Tail {
            next,
            proven: self.durable,
            clean: !cut && self.durable == next && segment.end() == u64::MAX,
            kept: self.kept,
            marks: self.marks,
            torn,
            lost_bytes,
            segment: segment.clone(),
            file: frames.into_file(),
            offset,
        })
    }
}

/// What the bytes from `offset` of `segment` on, and the `later` segments, say had been durable, and how many there are.
pub(crate) fn evidence<'a, F: Files>(
    files: &F,
    segment: &Segment,
    file: &F::File,
    offset: u64,
    owner: &[u8; 32],
    later: impl Iterator<Item = &'a Arc<Segment>>,
) -> Result<(u64, u64), Error> {
    let rest = look_behind(file, offset, owner);
    let rest = rest.map_err(|error| Error::io("read", &*segment.name, error))?;
    let (mut durable, mut bytes) = (rest.durable, rest.bytes);
    for later in later {
        let file = files.open(&later.name);
        let file = file.map_err(|error| Error::io("open", &*later.name, error))?;
        let rest = look_behind(&file, HEADER_BYTES, owner);
        let rest = rest.map_err(|error| Error::io("read", &*later.name, error))?;
        durable = durable.max(rest.durable);
        bytes += rest.bytes;
    }
    Ok((durable, bytes))
}
