//! Where this kernel keeps what its helpers do not tell, read from its own type information
//! (`/sys/kernel/btf/vmlinux`, format: kernel documentation, `bpf/btf.rst`).
//!
//! Promises: either all places are known or none is used; a damaged file is none.
//!
//! Limits: [`FILE_BYTES_MAX`]; members of nested anonymous structures are found down to
//! [`DEPTH_MAX`].

use std::io::Read as _;
use std::sync::LazyLock;

use tidegate_agent_common::Offsets;

/// The kernel's type information.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Largest file that is read, in bytes; Debian's has 5 MiB.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Deepest nesting of anonymous structures and of type names that is followed.
const DEPTH_MAX: u32 = 8;

const MAGIC: u16 = 0xeb9f;

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// The running kernel's; all 0 where it does not tell.
pub(super) fn offsets() -> Offsets {
    static FOUND: LazyLock<Offsets> = LazyLock::new(|| {
        let mut bytes = Vec::new();
        let read = std::fs::File::open(VMLINUX)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
        if read.is_err() { Offsets::default() } else { offsets_in(&bytes).unwrap_or_default() }
    });
    *FOUND
}

fn offsets_in(bytes: &[u8]) -> Option<Offsets> {
    let types = Types::parse(bytes)?;
    let task = types.structure("task_struct")?;
    let cred = types.structure("cred")?;
    let sock = types.structure("sock")?;
    let lock = types.member(sock, "sk_lock", 0)?;
    let owned = types.member(lock.kind, "owned", 0)?;
    Some(Offsets {
        task_cred: types.member(task, "cred", 0)?.at,
        task_tgid: types.member(task, "tgid", 0)?.at,
        cred_uid: types.member(cred, "uid", 0)?.at,
        cred_euid: types.member(cred, "euid", 0)?.at,
        sk_uid: types.member(sock, "sk_uid", 0)?.at,
        sk_owned: lock.at.checked_add(owned.at)?,
    })
}

/// A member: where it is, in bytes, and its type's number.
#[derive(Debug, Clone, Copy)]
struct Member {
    at: u32,
    kind: u32,
}

/// One type: the head's three words, and where what follows it stands.
///
/// `payload` is a size or another type's number, by kind.
#[derive(Debug, Clone, Copy)]
struct Type {
    name: u32,
    info: u32,
    payload: u32,
    behind: usize,
}

impl Type {
    const fn kind(self) -> u32 {
        self.info >> 24 & 31
    }

    const fn members(self) -> u32 {
        self.info & 0xffff
    }

    const fn is_compound(self) -> bool {
        matches!(self.kind(), KIND_STRUCT | KIND_UNION)
    }
}

struct Types<'a> {
    bytes: &'a [u8],
    strings: usize,
    /// Numbers begin at 1.
    all: Vec<Type>,
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let magic = bytes.get(..2)?;
        if magic != MAGIC.to_le_bytes() {
            return None;
        }
        let place = |at| word(bytes, at).and_then(|value| usize::try_from(value).ok());
        let head = place(4)?;
        let (begin, end) = (head.checked_add(place(8)?)?, place(12)?);
        let end = begin.checked_add(end)?;
        let strings = head.checked_add(place(16)?)?;
        let mut types = Vec::new();
        let mut at = begin;
        while at < end {
            let name = word(bytes, at)?;
            let info = word(bytes, at.checked_add(4)?)?;
            let payload = word(bytes, at.checked_add(8)?)?;
            let behind = at.checked_add(12)?;
            let one = Type { name, info, payload, behind };
            at = behind.checked_add(following(one)?)?;
            types.push(one);
        }
        Some(Self { bytes, strings, all: types })
    }

    fn name(&self, at: u32) -> Option<&'a [u8]> {
        let from = self.strings.checked_add(usize::try_from(at).ok()?)?;
        let rest = self.bytes.get(from..)?;
        rest.get(..rest.iter().position(|byte| *byte == 0)?)
    }

    fn of(&self, number: u32) -> Option<Type> {
        self.all.get(usize::try_from(number.checked_sub(1)?).ok()?).copied()
    }

    /// The number of the structure of this name.
    fn structure(&self, name: &str) -> Option<u32> {
        let found = self.all.iter().position(|one| {
            one.kind() == KIND_STRUCT && self.name(one.name) == Some(name.as_bytes())
        })?;
        u32::try_from(found).ok()?.checked_add(1)
    }

    /// A member of a structure, also within nameless structures; type names are looked through.
    fn member(&self, number: u32, name: &str, depth: u32) -> Option<Member> {
        let of = self.of(number)?;
        if depth > DEPTH_MAX {
            return None;
        }
        if matches!(of.kind(), KIND_TYPEDEF | KIND_CONST | KIND_VOLATILE) {
            return self.member(of.payload, name, depth + 1);
        }
        if !of.is_compound() {
            return None;
        }
        for index in 0..of.members() {
            let at = of.behind.checked_add(usize::try_from(index).ok()?.checked_mul(12)?)?;
            let called = self.name(word(self.bytes, at)?)?;
            let kind = word(self.bytes, at.checked_add(4)?)?;
            // With the kind's flag the upper byte is the size of a bit field.
            let bits = word(self.bytes, at.checked_add(8)?)?;
            let bits = if of.info >> 31 == 1 { bits & 0x00ff_ffff } else { bits };
            let here = bits / 8;
            if called == name.as_bytes() {
                return Some(Member { at: here, kind });
            }
            if called.is_empty()
                && let Some(inner) = self.member(kind, name, depth + 1)
            {
                return Some(Member { at: here.checked_add(inner.at)?, kind: inner.kind });
            }
        }
        None
    }
}

/// Bytes behind the head of a type; `None` for a kind that this version does not know.
fn following(one: Type) -> Option<usize> {
    let count = usize::try_from(one.members()).ok()?;
    Some(match one.kind() {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => count.checked_mul(12)?,
        KIND_ENUM | KIND_FUNC_PROTO => count.checked_mul(8)?,
        2 | 7 | 8 | 9 | 10 | 11 | 12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_tells_every_place() {
        let found = offsets();
        assert!(found.are_known(), "not run: this kernel has no type information");
        let all = [found.task_cred, found.task_tgid, found.cred_uid, found.cred_euid];
        assert!(all.iter().chain([&found.sk_uid, &found.sk_owned]).all(|at| *at > 0));
        // `struct cred` begins with a count, then uid, gid, suid, sgid, euid (include/linux/cred.h).
        assert_eq!(found.cred_euid - found.cred_uid, 16);
    }

    #[test]
    fn what_is_damaged_tells_nothing() {
        let whole = std::fs::read(VMLINUX).unwrap();
        for keep in [0, 1, 4, 23, 24, 1000, whole.len() / 3] {
            assert_eq!(offsets_in(&whole[..keep]), None, "{keep} bytes");
        }
        let mut other = whole;
        other[0] ^= 1;
        assert_eq!(offsets_in(&other), None);
    }
}
