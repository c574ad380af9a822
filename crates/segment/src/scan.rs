//! Reads a whole directory of segments and names every damage: what a verifier uses.
//!
//! Promises: reads only, and works on a copy, on a read-only directory, and beside a running writer (whose newest
//! frames may then look like a torn tail). After damage it goes on where it can: behind the damaged frame if the index
//! there is certain, else with the next segment. Cannot: see that whole segments at the end are gone. Known gap: in the
//! newest segment, indices behind damage rest on the damaged frame's length, which someone may have chosen.

use std::sync::Arc;

use crate::error::{Damage, Error};
use crate::files::{File, Files};
use crate::format::{HEADER_BYTES, MARK_BYTES, MARK_KIND};
use crate::frames::{Frames, Step};
use crate::reader::Frame;
use crate::recover::{Survey, Torn, evidence, survey};
use crate::view::Segment;

/// Starts a scan. Fails at once if a header is damaged.
pub fn scan<F: Files>(files: F) -> Result<Scan<F>, Error> {
    let survey = survey(&files)?;
    let all = survey.view.all();
    let live = all.iter().filter(|segment| segment.first < segment.end()).cloned().collect();
    Ok(Scan { files, survey, all, live, at: 0, index: 0, current: None, end: None })
}

/// All frames of a log, in order.
pub struct Scan<F: Files> {
    files: F,
    survey: Survey,
    all: Vec<Arc<Segment>>,
    live: Vec<Arc<Segment>>,
    at: usize,
    index: u64,
    current: Option<Frames<F::File>>,
    end: Option<ScanEnd>,
}

/// How a scan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanEnd {
    /// Index after the last frame.
    pub next_index: u64,
    /// Where bytes begin that are no frame, if there are any behind the last one.
    pub torn: Option<Torn>,
    /// How many such bytes there are.
    pub lost_bytes: u64,
}

impl<F: Files> Scan<F> {
    /// How it ended; `None` until the iterator has.
    pub fn end(&self) -> Option<&ScanEnd> {
        self.end.as_ref()
    }

    /// Whose log it is; `None` if there is no segment.
    pub fn owner(&self) -> Option<[u8; 32]> {
        self.survey.owner
    }

    fn open(&mut self, segment: &Segment) -> Result<Frames<F::File>, Error> {
        let file = self.files.open(&segment.name);
        let file = file.map_err(|error| Error::io("open", &*segment.name, error))?;
        self.index = segment.first;
        Ok(Frames::new(file, HEADER_BYTES))
    }

    fn leave(&mut self) {
        self.at += 1;
        self.current = None;
    }

    /// There is no good frame where one could be: the end of the log, its torn tail, or damage.
    fn stopped(
        &mut self,
        segment: &Segment,
        mut frames: Frames<F::File>,
        what: &'static str,
        after: Option<u64>,
    ) -> Result<(), Error> {
        let (index, offset) = (self.index, frames.offset());
        let owner = self.survey.owner.unwrap_or_default();
        let later = self.all.iter().filter(|later| later.ordinal > segment.ordinal);
        let (proven, lost_bytes) =
            evidence(&self.files, segment, frames.file(), offset, &owner, later)?;
        let file = segment.name.to_string();
        if proven.max(self.survey.durable) <= index {
            let torn = (lost_bytes > 0).then_some(Torn { file, offset, index });
            self.at = self.live.len();
            self.end = Some(ScanEnd { next_index: index, torn, lost_bytes });
            return Ok(());
        }
        match after.and_then(|after| behind(segment, &mut frames, index, after)) {
            Some(next) => {
                self.index = next;
                self.current = Some(frames);
            }
            None => self.leave(),
        }
        Err(Error::Damaged(Damage { file, offset, index, what: what.to_owned() }))
    }
}

/// Places `frames` behind a damaged frame, and says which index comes there; `None` if that is not certain.
///
/// In a segment that another one follows, the number of frames up to its end is known, and decides. In the newest one the
/// damaged frame's own length does, unless the frame may have been a mark, which has no index.
fn behind<H: File>(
    segment: &Segment,
    frames: &mut Frames<H>,
    index: u64,
    after: u64,
) -> Option<u64> {
    let newest = segment.end() == u64::MAX;
    let may_be_mark = after - frames.offset() == MARK_BYTES as u64;
    frames.jump(after);
    let mut next = index;
    let mut steps = 0_u64;
    let whole = loop {
        match frames.step() {
            Ok(Step::Frame { kind, .. }) => next += u64::from(kind != MARK_KIND),
            Ok(Step::End) => break steps > 0,
            _ => break false,
        }
        steps += 1;
        if newest {
            break true;
        }
    };
    frames.jump(after);
    match (whole, newest) {
        (true, true) => (!may_be_mark).then_some(index + 1),
        (true, false) if next + 1 == segment.end() => Some(index + 1),
        (true, false) if next == segment.end() => Some(index),
        _ => None,
    }
}

impl<F: Files> Iterator for Scan<F> {
    type Item = Result<Frame, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(segment) = self.live.get(self.at).cloned() else {
                let next_index = self.index;
                self.end.get_or_insert(ScanEnd { next_index, torn: None, lost_bytes: 0 });
                return None;
            };
            let mut frames = match self.current.take() {
                Some(frames) => frames,
                None => match self.open(&segment) {
                    Ok(frames) => frames,
                    Err(error) => {
                        self.leave();
                        return Some(Err(error));
                    }
                },
            };
            if self.index >= segment.end() {
                self.leave();
                continue;
            }
            let (what, after) = match frames.step() {
                Ok(Step::Frame { kind: MARK_KIND, .. }) => {
                    self.current = Some(frames);
                    continue;
                }
                Ok(Step::Frame { kind, payload, offset }) => {
                    let payload = frames.payload(payload).to_vec();
                    let (index, file) = (self.index, segment.name.clone());
                    self.index += 1;
                    self.current = Some(frames);
                    return Some(Ok(Frame { index, kind, payload, file, offset }));
                }
                Ok(Step::End) => ("the frame is missing", None),
                Ok(Step::Bad { what, after }) => (what, after),
                Err(error) => {
                    self.leave();
                    return Some(Err(Error::io("read", &*segment.name, error)));
                }
            };
            if let Err(error) = self.stopped(&segment, frames, what, after) {
                return Some(Err(error));
            }
        }
    }
}
