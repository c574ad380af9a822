//! Whether a destination of the capture table covers an address and port.
//!
//! Promises: one answer on both sides of the kernel's fence; no panic, no loop, no division, so
//! that the verifier takes it.
//!
//! An IPv4 destination covers the v4-mapped form of its addresses too, since that is where they
//! lead; an IPv6 destination never covers a v4-mapped address, so `::/0` is not "all of IPv4".

use core::net::IpAddr;

/// An IPv6 address (IPv4 is v4-mapped) as four words in network byte order.
pub type Address = [u32; 4];

/// [`Destination::flags`]: it is an IPv4 destination.
const FLAG_V4: u16 = 1;

/// [`Destination::flags`]: it passes, bounded, while the heartbeat is stale.
const FLAG_OPEN: u16 = 2;

/// [`Destination::flags`]: whom it covers is not led to the gate.
const FLAG_EXEMPT: u16 = 4;

/// Third word of a v4-mapped address.
const V4_MAPPED_WORD: u32 = 0x0000_ffff_u32.to_be();

/// One protected prefix and port.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Network address; bits behind the prefix are zero.
    pub net: Address,
    /// One bits where the address must agree.
    pub mask: Address,
    /// How long after the last heartbeat it passes, where it is open on failure.
    pub open_ns_max: u64,
    /// Its rule.
    pub rule: u32,
    /// Port in host byte order; 0 is any port.
    pub port: u16,
    /// Family and behaviour on failure.
    pub flags: u16,
    /// Length of the prefix in bits of the IPv6 address.
    pub bits: u32,
    /// Zero.
    pub zero: u32,
}

/// A prefix longer than its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixTooLong {
    /// What was asked for.
    pub prefix: u8,
    /// The longest for this family.
    pub max: u8,
}

impl Destination {
    /// A destination that stays closed on failure.
    pub fn new(rule: u32, ip: IpAddr, prefix: u8, port: u16) -> Result<Self, PrefixTooLong> {
        let max = if ip.is_ipv4() { 32 } else { 128 };
        if prefix > max {
            return Err(PrefixTooLong { prefix, max });
        }
        let net = crate::words_of(ip);
        // A v4-mapped prefix written as IPv6 means the IPv4 addresses behind it.
        let v4 = ip.is_ipv4() || is_v4_mapped(&net) && prefix >= 96;
        let bits = if ip.is_ipv4() { u32::from(prefix) + 96 } else { u32::from(prefix) };
        let mask = mask_of(bits);
        let mut masked = [0_u32; 4];
        for ((to, word), mask) in masked.iter_mut().zip(net).zip(mask) {
            *to = word & mask;
        }
        let flags = if v4 { FLAG_V4 } else { 0 };
        Ok(Self { net: masked, mask, open_ns_max: 0, rule, port, flags, bits, zero: 0 })
    }

    /// The same, passing for `ns_max` after the last heartbeat.
    #[must_use]
    pub const fn open_for(mut self, ns_max: u64) -> Self {
        self.flags |= FLAG_OPEN;
        self.open_ns_max = ns_max;
        self
    }

    /// The same, for those who may go there directly.
    #[must_use]
    pub const fn exempt(mut self) -> Self {
        self.flags |= FLAG_EXEMPT;
        self
    }

    /// Whether whom it covers may go there directly.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "kernels before 5.10 take few calls in a program")]
    pub const fn is_exempt(&self) -> bool {
        self.flags & FLAG_EXEMPT != 0
    }

    /// Whether it covers this address and port (host byte order).
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "kernels before 5.10 take few calls in a program")]
    pub const fn covers(&self, addr: &Address, port: u16) -> bool {
        let [a0, a1, a2, a3] = *addr;
        let [n0, n1, n2, n3] = self.net;
        let [m0, m1, m2, m3] = self.mask;
        let differs = (a0 & m0 ^ n0) | (a1 & m1 ^ n1) | (a2 & m2 ^ n2) | (a3 & m3 ^ n3);
        differs == 0
            && (self.port == 0 || self.port == port)
            && (self.flags & FLAG_V4 != 0) == is_v4_mapped(addr)
    }

    /// Whether it passes, bounded, while the heartbeat is stale.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "kernels before 5.10 take few calls in a program")]
    pub const fn is_open(&self) -> bool {
        self.flags & FLAG_OPEN != 0
    }

    /// Whether it is an IPv4 destination.
    pub const fn is_v4(&self) -> bool {
        self.flags & FLAG_V4 != 0
    }

    /// The one that holds of two that cover the same address: with more fixed bits, then with a
    /// fixed port.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "kernels before 5.10 take few calls in a program")]
    pub const fn or_more_specific<'a>(&'a self, other: &'a Self) -> &'a Self {
        if self.bits > other.bits || (self.bits == other.bits && self.port != 0) {
            self
        } else {
            other
        }
    }
}

/// Whether the address is `::ffff:a.b.c.d`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "kernels before 5.10 take few calls in a program")]
pub const fn is_v4_mapped(addr: &Address) -> bool {
    let [a0, a1, a2, _] = *addr;
    (a0 | a1 | (a2 ^ V4_MAPPED_WORD)) == 0
}

fn mask_of(bits: u32) -> Address {
    let mut mask = [0_u32; 4];
    let mut left = bits;
    for word in &mut mask {
        let here = left.min(32);
        *word = u32::MAX.checked_shl(32 - here).unwrap_or(0).to_be();
        left -= here;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ip_of, words_of};

    fn check(destination: &str, prefix: u8, port: u16, asked: &str, asked_port: u16) -> bool {
        let destination = Destination::new(0, destination.parse().unwrap(), prefix, port).unwrap();
        destination.covers(&words_of(asked.parse().unwrap()), asked_port)
    }

    #[test]
    fn a_destination_covers_its_prefix_and_port_and_nothing_else() {
        let rows = [
            ("10.0.0.5", 32, 5432, "10.0.0.5", 5432, true),
            ("10.0.0.5", 32, 5432, "10.0.0.5", 5433, false),
            ("10.0.0.5", 32, 0, "10.0.0.5", 1, true),
            ("10.0.0.5", 32, 5432, "10.0.0.4", 5432, false),
            ("10.1.2.3", 16, 5432, "10.1.255.255", 5432, true),
            ("10.1.2.3", 16, 5432, "10.2.0.0", 5432, false),
            ("10.1.2.3", 15, 5432, "10.0.0.0", 5432, true),
            ("0.0.0.0", 0, 5432, "203.0.113.9", 5432, true),
            ("0.0.0.0", 0, 5432, "fd00::1", 5432, false),
            ("10.0.0.5", 32, 5432, "::ffff:10.0.0.5", 5432, true),
            ("::", 0, 5432, "fd00::1", 5432, true),
            ("::", 0, 5432, "10.0.0.5", 5432, false),
            ("::ffff:10.0.0.0", 104, 5432, "10.9.9.9", 5432, true),
            ("fd00::", 8, 5432, "fdff::1", 5432, true),
            ("fd00::", 8, 5432, "fe00::1", 5432, false),
            ("fd00::1", 128, 5432, "fd00::1", 5432, true),
            ("fd00::1", 128, 5432, "fd00::2", 5432, false),
            ("fd00::1:0:0:1", 33, 5432, "fd00::ffff:0:0:1", 5432, true),
        ];
        for (net, prefix, port, asked, asked_port, expected) in rows {
            assert_eq!(
                check(net, prefix, port, asked, asked_port),
                expected,
                "{net}/{prefix}:{port} and {asked}:{asked_port}"
            );
        }
    }

    #[test]
    fn every_prefix_covers_exactly_the_addresses_that_agree_in_its_bits() {
        let base = u128::from(std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 6));
        for prefix in 0..=128_u8 {
            let of = Destination::new(0, IpAddr::V6(base.into()), prefix, 0).unwrap();
            for bit in 0..128_u8 {
                let asked = base ^ (1_u128 << (127 - bit));
                let covered = of.covers(&words_of(IpAddr::V6(asked.into())), 1);
                assert_eq!(covered, bit >= prefix, "/{prefix}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_prefix_longer_than_its_address_is_refused() {
        let v4 = Destination::new(0, "10.0.0.1".parse().unwrap(), 33, 0);
        assert_eq!(v4, Err(PrefixTooLong { prefix: 33, max: 32 }));
        let v6 = Destination::new(0, "::1".parse().unwrap(), 129, 0);
        assert_eq!(v6, Err(PrefixTooLong { prefix: 129, max: 128 }));
    }

    #[test]
    fn words_and_addresses_turn_into_each_other() {
        for text in ["10.0.0.5", "0.0.0.0", "fd00::1", "::", "2001:db8::ff"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(ip_of(words_of(ip)), ip);
        }
    }

    #[test]
    fn the_narrower_destination_holds_and_a_fixed_port_breaks_the_tie() {
        let of = |ip: &str, prefix, port| {
            Destination::new(0, ip.parse().unwrap(), prefix, port).unwrap()
        };
        let (host, net) = (of("10.0.0.5", 32, 0), of("10.0.0.0", 24, 5432));
        let fixed = of("10.0.0.5", 32, 5432);
        for (one, other, expected) in [(host, net, host), (host, fixed, fixed), (net, fixed, fixed)]
        {
            assert_eq!(*one.or_more_specific(&other), expected);
            assert_eq!(*other.or_more_specific(&one), expected);
        }
    }
}
