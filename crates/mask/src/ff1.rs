//! Format-preserving encryption FF1 (NIST SP 800-38G, revision 1), of at most [`NUMERALS_MAX`] numerals
//! of radix 10 or 26, without allocation.
//!
//! Promises: NIST's sample data (tests below); a permutation for each key, tweak, radix and length.
//! Cannot do: domains under a million values, which the revision forbids ([`is_wide`]).

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};

/// Most numerals of one value. Half of them, and eight bits more, fit 128 bits in radix 26.
pub(crate) const NUMERALS_MAX: usize = 48;

/// Fewest values that a domain may have (SP 800-38G revision 1, section 5).
const DOMAIN_MIN: u128 = 1_000_000;

/// Bytes of a tweak.
pub(crate) const TWEAK_BYTES: usize = 10;

/// A key.
pub(crate) struct Ff1<C = Aes256>(C);

impl Ff1 {
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Aes256::new(key.into()))
    }
}

/// Whether so many numerals make a domain that FF1 may be used on.
pub(crate) fn is_wide(radix: u8, numerals: usize) -> bool {
    let exponent = u32::try_from(numerals).unwrap_or(u32::MAX);
    u128::from(radix).checked_pow(exponent).is_none_or(|values| values >= DOMAIN_MIN)
}

impl<C: Cipher> Ff1<C> {
    /// Encrypts `numerals`, each below `radix`, in place. Does nothing where there are more than
    /// [`NUMERALS_MAX`].
    pub fn encrypt(&self, radix: u8, tweak: &[u8], numerals: &mut [u8]) {
        let all = numerals.len();
        let half = all / 2;
        if all > NUMERALS_MAX || tweak.len() > TWEAK_BYTES {
            return;
        }
        let Some((left, right)) = numerals.split_at_mut_checked(half) else { return };
        let wide = u128::from(radix);
        let (mut a, mut b) = (number(wide, left), number(wide, right));
        let (u_size, v_size) = (power(wide, left.len()), power(wide, right.len()));
        let width = bytes_of(v_size);
        let length = 4 * width.div_ceil(4) + 4;
        let first = first_block(radix, half, all, tweak.len());
        for round in 0..10_u8 {
            let modulus = if round % 2 == 0 { u_size } else { v_size };
            let added = self.round(first, tweak, round, b, width, length, modulus);
            let next = (a + added) % modulus;
            a = b;
            b = next;
        }
        write(wide, a, left);
        write(wide, b, right);
    }

    /// `NUM(S) mod modulus` of one round.
    #[expect(clippy::too_many_arguments, reason = "the standard's own names, one use")]
    fn round(
        &self,
        first: [u8; 16],
        tweak: &[u8],
        round: u8,
        b: u128,
        width: usize,
        length: usize,
        modulus: u128,
    ) -> u128 {
        // Q: the tweak, zeroes, the round, and B in `width` bytes; a multiple of 16 bytes, 32 at most.
        let mut q = [0_u8; 32];
        let q_bytes = (tweak.len() + width + 1).div_ceil(16) * 16;
        let tail = b.to_be_bytes();
        let tail = tail.get(16_usize.saturating_sub(width)..).unwrap_or_default();
        let parts = [(0, tweak), (q_bytes - width - 1, &[round][..]), (q_bytes - width, tail)];
        for (at, part) in parts {
            if let Some(place) = q.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
        }
        let mut r = first;
        self.0.encrypt(&mut r);
        for block in q.get(..q_bytes).unwrap_or_default().chunks(16) {
            r.iter_mut().zip(block).for_each(|(byte, with)| *byte ^= with);
            self.0.encrypt(&mut r);
        }
        let mut second = r;
        if let Some(last) = second.last_mut() {
            *last ^= 1;
        }
        self.0.encrypt(&mut second);
        let s = r.iter().chain(&second).take(length);
        s.fold(0, |sum, byte| (sum * 256 + u128::from(*byte)) % modulus)
    }
}

/// A block cipher with blocks of 16 bytes: AES with either length of key.
pub(crate) trait Cipher {
    fn encrypt(&self, block: &mut [u8; 16]);
}

impl Cipher for Aes256 {
    fn encrypt(&self, block: &mut [u8; 16]) {
        self.encrypt_block(block.into());
    }
}

/// P of the standard.
fn first_block(radix: u8, u: usize, n: usize, tweak: usize) -> [u8; 16] {
    let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    [1, 2, 1, 0, 0, radix, 10, byte(u), 0, 0, 0, byte(n), 0, 0, 0, byte(tweak)]
}

fn power(radix: u128, exponent: usize) -> u128 {
    (0..exponent).fold(1, |product: u128, _| product.saturating_mul(radix))
}

/// Bytes of the largest number below `size`.
const fn bytes_of(size: u128) -> usize {
    let bits = 128 - size.saturating_sub(1).leading_zeros();
    bits.div_ceil(8) as usize
}

fn number(radix: u128, numerals: &[u8]) -> u128 {
    numerals.iter().fold(0, |sum: u128, numeral| {
        sum.saturating_mul(radix).saturating_add(u128::from(*numeral))
    })
}

fn write(radix: u128, mut number: u128, numerals: &mut [u8]) {
    for numeral in numerals.iter_mut().rev() {
        *numeral = u8::try_from(number % radix).unwrap_or_default();
        number /= radix;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes::Aes128;
    use proptest::prelude::*;

    impl Cipher for Aes128 {
        fn encrypt(&self, block: &mut [u8; 16]) {
            self.encrypt_block(block.into());
        }
    }

    const KEY: [u8; 32] = [
        0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f,
        0x3c, 0xef, 0x43, 0x59, 0xd8, 0xd5, 0x80, 0xaa, 0x4f, 0x7f, 0x03, 0x6d, 0x6f, 0x04, 0xfc,
        0x6a, 0x94,
    ];
    const TWEAK: &[u8] = &[0x39, 0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31, 0x30];

    fn encrypted<C: Cipher>(ff1: &Ff1<C>, tweak: &[u8]) -> String {
        let mut numerals: Vec<u8> = (0..10).collect();
        ff1.encrypt(10, tweak, &mut numerals);
        numerals.iter().map(|numeral| char::from(b'0' + numeral)).collect()
    }

    /// Samples 1, 2, 7 and 8 of NIST's "FF1samples.pdf".
    #[test]
    fn nists_samples_hold() {
        let short: [u8; 16] = KEY[..16].try_into().unwrap();
        let aes128 = Ff1(Aes128::new((&short).into()));
        assert_eq!(encrypted(&aes128, &[]), "2433477484");
        assert_eq!(encrypted(&aes128, TWEAK), "6124200773");
        let aes256 = Ff1::new(&KEY);
        assert_eq!(encrypted(&aes256, &[]), "6657667009");
        assert_eq!(encrypted(&aes256, TWEAK), "1001623463");
    }

    proptest! {
        #[test]
        fn different_values_get_different_tokens(
            one in proptest::collection::vec(0_u8..26, 6..=NUMERALS_MAX), at: prop::sample::Index, by in 1_u8..26,
        ) {
            let mut other = one.clone();
            let place = at.index(other.len());
            other[place] = (other[place] + by) % 26;
            let ff1 = Ff1::new(&KEY);
            let (mut first, mut second) = (one.clone(), other);
            ff1.encrypt(26, TWEAK, &mut first);
            ff1.encrypt(26, TWEAK, &mut second);
            prop_assert!(first.iter().all(|numeral| *numeral < 26));
            prop_assert_ne!(first, second);
        }
    }
}
