//! What a verification found, in words and as a verdict.

use std::fmt;

use tidegate_event::{ChainId, Seq};

use crate::Hash;

/// How grave a finding is; later ones outrank earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Worth knowing, and no fault of the log: a clock was set.
    Notice,
    /// Something is missing, and the agent said so itself.
    Gap,
    /// It can't be decided with what was given.
    Undecided,
    /// The log is not what the agents sealed, or what the checkpoints were signed over.
    Tampering,
}

impl Class {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Gap => "gap",
            Self::Undecided => "undecided",
            Self::Tampering => "tampering",
        }
    }
}

/// One thing that is wrong, missing or unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How grave.
    pub class: Class,
    /// Segment file.
    pub file: Option<String>,
    /// Byte offset of the entry in it.
    pub offset: Option<u64>,
    /// Index in the log.
    pub index: Option<u64>,
    /// The run of entries, first and last, in which it lies, where no single one can be named.
    pub entries: Option<(u64, u64)>,
    /// The chain.
    pub chain: Option<ChainId>,
    /// The record.
    pub seq: Option<Seq>,
    /// In plain words.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.class.name())?;
        if let Some(file) = &self.file {
            write!(f, " {file}")?;
            if let Some(offset) = self.offset {
                write!(f, " at byte {offset}")?;
            }
            f.write_str(",")?;
        }
        if let Some(index) = self.index {
            write!(f, " index {index},")?;
        }
        if let Some(chain) = &self.chain {
            write!(f, " chain {chain},")?;
        }
        if let Some(seq) = self.seq {
            write!(f, " record {seq},")?;
        }
        write!(f, " {}", self.what)
    }
}

/// One chain, as far as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSummary {
    /// Its id.
    pub chain_id: ChainId,
    /// Whose it is, where its Genesis is in the log.
    pub agent_id: Option<String>,
    /// Its records in the log.
    pub records: u64,
    /// How many of them are under a seal that verifies.
    pub sealed: u64,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was found, in the order of the log.
    pub findings: Vec<Finding>,
    /// How many more there were than [`super::FINDINGS_MAX`].
    pub findings_left_out: u64,
    /// Entries walked.
    pub entries: u64,
    /// Records among them.
    pub records: u64,
    /// Seals among them.
    pub seals: u64,
    /// Root over all entries, hexadecimal in print. Meaningless where an entry is missing.
    pub root: Hash,
    /// Checkpoints that the log matches.
    pub checkpoints_checked: usize,
    /// Size of the largest of them: entries below it can't have been rewritten since.
    pub bound_size: u64,
    /// Size of the largest checkpoint that the policy's quorum of witnesses signed too.
    pub witnessed_size: u64,
    /// Checkpoints that agents recorded in their heartbeats and that the log matches.
    pub seen_heads: u64,
    /// The chains.
    pub chains: Vec<ChainSummary>,
    /// What this verdict does not prove, one sentence each.
    pub not_proven: Vec<String>,
}

impl Report {
    /// 0 all holds, 10 with declared gaps, 20 tampering, 30 can't decide.
    pub fn exit_code(&self) -> u8 {
        match self.findings.iter().map(|finding| finding.class).max() {
            None | Some(Class::Notice) => 0,
            Some(Class::Gap) => 10,
            Some(Class::Tampering) => 20,
            Some(Class::Undecided) => 30,
        }
    }

    /// The verdict in one sentence.
    pub fn verdict(&self) -> &'static str {
        match self.exit_code() {
            0 => "verified: every record is as its agent sealed it, and none is missing",
            10 => "verified, with gaps that are declared (listed)",
            20 => "TAMPERING: the log is not what was sealed or signed (listed)",
            _ => "can't decide: a key, a seal, a checkpoint or a witness is missing (listed)",
        }
    }
}
