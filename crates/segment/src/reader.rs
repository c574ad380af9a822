//! Reads frames in order while the log is being written, across segments, without holding the log.
//!
//! Promises: returns frames below its bound only, in order, each once; keeps its place and reads on when more was
//! written. Cannot: go back; read frames whose segment was removed ([`Error::Removed`]).
//! Seeking walks at most 1 MiB of frames in a segment written by this process, a whole segment in an older one.

use std::io;
use std::sync::Arc;

use crate::error::{Damage, Error};
use crate::files::Files;
use crate::format::MARK_KIND;
use crate::frames::{Frames, Step};
use crate::view::{Segment, View};

/// How far a reader may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Only frames that have been reported durable.
    Durable,
    /// All that was handed to the operating system; the last of it may be gone after a power cut.
    Written,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its number in the log, from 0, without gaps.
    pub index: u64,
    /// What the caller said that it is; 1 to 255.
    pub kind: u8,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// The file where it was read.
    pub file: Arc<str>,
    /// The offset of the frame's first byte there.
    pub offset: u64,
}

/// A place in the log.
pub struct Reader<F: Files> {
    files: Arc<F>,
    view: Arc<View>,
    bound: Bound,
    index: u64,
    place: Option<Place<F::File>>,
}

struct Place<H> {
    segment: Arc<Segment>,
    frames: Frames<H>,
    /// Index of the frame that `frames` will read next.
    at: u64,
}

impl<F: Files> Reader<F> {
    pub(crate) fn new(files: Arc<F>, view: Arc<View>, index: u64, bound: Bound) -> Self {
        Self { files, view, bound, index, place: None }
    }

    /// The frame that comes next.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The next frame, or `None` if there is none below the bound by now.
    #[expect(clippy::should_implement_trait, reason = "None is not the end: more may be written")]
    pub fn next(&mut self) -> Result<Option<Frame>, Error> {
        let bound = match self.bound {
            Bound::Durable => self.view.durable(),
            Bound::Written => self.view.written(),
        };
        if self.index >= bound {
            return Ok(None);
        }
        let mut fresh = false;
        loop {
            let kept = self.place.take().filter(|place| self.index < place.segment.end());
            fresh |= kept.is_none();
            let place = match kept {
                Some(place) => place,
                None => self.locate()?,
            };
            let place = self.place.insert(place);
            let name = &place.segment.name;
            place.frames.filled(place.segment.bytes());
            match place.frames.step().map_err(|error| Error::io("read", &**name, error))? {
                Step::Frame { kind: MARK_KIND, .. } => {}
                Step::Frame { kind, payload, offset } => {
                    place.at += 1;
                    if place.at > self.index {
                        let payload = place.frames.payload(payload).to_vec();
                        let frame =
                            Frame { index: self.index, kind, payload, file: name.clone(), offset };
                        self.index += 1;
                        return Ok(Some(frame));
                    }
                }
                // The buffer may be older than the frame: read the file once more before calling it damage.
                Step::End | Step::Bad { .. } if !fresh => {
                    place.frames.jump(place.frames.offset());
                    fresh = true;
                }
                // Superseded while we read it.
                Step::End | Step::Bad { .. } if self.index >= place.segment.end() => {}
                Step::End => return Err(damage(place, "the frame is missing")),
                Step::Bad { what, .. } => return Err(damage(place, what)),
            }
        }
    }

    fn locate(&self) -> Result<Place<F::File>, Error> {
        loop {
            let gone = || Error::Removed { index: self.index, oldest: self.view.oldest() };
            let segment = self.view.locate(self.index).ok_or_else(gone)?;
            match self.files.open(&segment.name) {
                Ok(file) => {
                    let (at, offset) = segment.place_before(self.index);
                    return Ok(Place { segment, frames: Frames::new(file, offset), at });
                }
                // Unlinked between the two steps; then the list no longer has it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let listed = self.view.locate(self.index);
                    if listed.is_some_and(|listed| listed.ordinal == segment.ordinal) {
                        return Err(Error::io("open", &*segment.name, error));
                    }
                }
                Err(error) => return Err(Error::io("open", &*segment.name, error)),
            }
        }
    }
}

fn damage<H: crate::File>(place: &Place<H>, what: &str) -> Error {
    Error::Damaged(Damage {
        file: place.segment.name.to_string(),
        offset: place.frames.offset(),
        index: place.at,
        what: what.to_owned(),
    })
}
