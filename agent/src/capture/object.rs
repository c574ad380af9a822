//! The kernel object that the agent carries in itself.

use aya::include_bytes_aligned;
use object::{Object as _, ObjectSection as _};
use sha2::{Digest as _, Sha256};
use tidegate_agent_common::{ABI, ABI_SECTION, Abi};
use tidegate_event::Digest;

use super::CaptureError;

/// The object, embedded at build time (`agent/build.rs`).
pub(super) static OBJECT: &[u8] = include_bytes_aligned!(env!("TIDEGATE_EMBEDDED_OBJECT"));

/// SHA-256 of the embedded object.
pub fn object_digest() -> Digest {
    Digest(Sha256::digest(OBJECT).into())
}

/// Refuses an object of another ABI than the agent's.
pub(super) fn check(object: &[u8]) -> Result<(), CaptureError> {
    let found = abi_of(object)?;
    if found == ABI { Ok(()) } else { Err(CaptureError::ObjectAbi { found, expected: ABI }) }
}

fn abi_of(object: &[u8]) -> Result<Abi, CaptureError> {
    let wrong = |why: &str| CaptureError::Object(why.to_owned());
    let file = object::File::parse(object).map_err(|error| wrong(&error.to_string()))?;
    let section =
        file.section_by_name(ABI_SECTION).ok_or_else(|| wrong("it does not name its ABI"))?;
    let data = section.data().map_err(|error| wrong(&error.to_string()))?;
    let word = |at: usize| {
        let bytes = data.get(at..at + 4)?;
        bytes.try_into().ok().map(u32::from_le_bytes)
    };
    let (Some(magic), Some(version), Some(low), Some(high)) = (word(0), word(4), word(8), word(12))
    else {
        return Err(wrong("the section that names its ABI is too short"));
    };
    Ok(Abi { magic, version, layout: u64::from(high) << 32 | u64::from(low) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_object_speaks_the_agents_abi() {
        check(OBJECT).unwrap();
    }

    #[test]
    fn an_object_of_another_abi_is_refused_with_what_to_do() {
        let layout = ABI.layout.to_le_bytes();
        let at = OBJECT.windows(8).position(|window| window == layout).unwrap();
        let mut other = OBJECT.to_vec();
        other[at] ^= 1;
        let error = check(&other).unwrap_err();
        assert!(matches!(error, CaptureError::ObjectAbi { .. }), "{error}");
        assert!(error.to_string().contains("cargo xtask ebpf"), "{error}");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bytes in [&b""[..], b"\x7fELF", &[0; 4096]] {
            assert!(matches!(check(bytes), Err(CaptureError::Object(_))));
        }
    }
}
