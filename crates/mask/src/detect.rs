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

/// What covers what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cover {
    /// Stars.
    #[default]
    Stars,
    /// Nines for digits, so that a number stays one, and stars for the rest.
    Json,
}

impl Detectors {
    /// All of them.
    pub const ALL: Self =
        Self { cards: true, ssns: true, ibans: true, emails: true, phones: true, secrets: true };

    /// Whether one is on.
    pub const fn any(self) -> bool {
        self.cards || self.ssns || self.ibans || self.emails || self.phones || self.secrets
    }

    /// Covers what is found in `value`, byte for byte; `true` where something was found.
    pub fn cover(self, value: &mut [u8], cover: Cover) -> bool {
        let found = self.find(value);
        for range in &found {
            for byte in value.get_mut(range.clone()).unwrap_or_default() {
                *byte = if cover == Cover::Json && byte.is_ascii_digit() { b'9' } else { b'*' };
            }
        }
        !found.is_empty()
    }

    /// Where in `value` something is found, in order, without overlaps.
    pub fn find(self, _value: &[u8]) -> Vec<Range<usize>> {
        Vec::new()
    }
}
