//! Values found by their shape.

use std::ops::Range;

/// Which detectors are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a configuration, each for itself")]
pub struct Detectors {
    /// Card numbers.
    pub cards: bool,
    /// US social security numbers.
    pub ssns: bool,
    /// IBANs.
    pub ibans: bool,
    /// E-mail addresses.
    pub emails: bool,
    /// Phone numbers.
    pub phones: bool,
    /// Keys and tokens.
    pub secrets: bool,
}

impl Detectors {
    /// All of them.
    pub const ALL: Self =
        Self { cards: true, ssns: true, ibans: true, emails: true, phones: true, secrets: true };

    /// Whether one is on.
    pub const fn any(&self) -> bool {
        self.cards || self.ssns || self.ibans || self.emails || self.phones || self.secrets
    }

    /// Where in `value` something is found, in order, without overlaps.
    pub fn find(&self, _value: &[u8]) -> Vec<Range<usize>> {
        Vec::new()
    }
}
