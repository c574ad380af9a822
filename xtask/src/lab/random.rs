//! Random picks, from the kernel for names and ports, from a seed for schedules.
//!
//! Limits: [`Seeded`] is xorshift64*, good for picking moments and never for keys.

use std::io::Read as _;

/// A number from the kernel's generator.
pub fn u64() -> anyhow::Result<u64> {
    let mut bytes = [0_u8; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A number below `limit` from the kernel's generator; 0 for a limit of 0.
pub fn below(limit: u32) -> anyhow::Result<u32> {
    let picked = u64()?.checked_rem(u64::from(limit)).unwrap_or(0);
    Ok(u32::try_from(picked)?)
}

/// A repeatable sequence.
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number below `limit`; 0 for a limit of 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        mixed.checked_rem(limit).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_sequence_again_and_another_seed_another() {
        let run = |seed| {
            let mut seeded = Seeded::new(seed);
            (0..8).map(|_| seeded.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        assert!(run(7).iter().all(|&number| number < 1000));
    }
}
