//! C2SP tlog-cosignature, `cosignature/v1` with Ed25519: a witness says that, at that time, this was
//! the largest tree of the log that it knew, and that it grew from all it had seen before.
//!
//! Promise: [`cosignatures`] names a witness only where its key signed exactly this checkpoint and
//! that time. Signatures of others are passed over; a wrong one in a known witness's name is an
//! error.
//!
//! Cannot do: say that the time is right; it is the witness's clock.
//! Limits: Ed25519 (type 4) only; ML-DSA-44 lines are passed over as unknown.

use crate::checkpoint::CheckpointError;
use crate::note::NamedKey;
use crate::{SigningKey, note, signing};

const COSIGNATURE_V1: u8 = 4;

/// A witness's public key, with the name that it signs under.
pub type WitnessKey = NamedKey<COSIGNATURE_V1>;

/// One witness's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// Which of the given witnesses.
    pub witness: usize,
    /// When, by the witness's clock, seconds since 1970.
    pub time_s: u64,
}

/// The witness's signature line over a note's text, with its newline.
pub fn cosign(
    key: &SigningKey,
    name: &str,
    note: &str,
    time_s: u64,
) -> Result<String, CheckpointError> {
    let witness = WitnessKey::new(name, key.verifying_key().to_bytes())?;
    let (text, _) = note::split(note)?;
    let signature = signing::sign(key, b"", message(text, time_s).as_bytes());
    let stamped = [time_s.to_be_bytes().as_slice(), &signature].concat();
    Ok(note::line(name, witness.key_hash(), &stamped))
}

/// Who of these witnesses signed the note.
pub fn cosignatures(
    note: &str,
    witnesses: &[WitnessKey],
) -> Result<Vec<Cosignature>, CheckpointError> {
    let (text, lines) = note::split(note)?;
    judge(text, &lines, witnesses)
}

/// The lines of a witness's answer that are its own good signature of this note; [`None`] where it
/// holds none.
pub fn taken_from_answer(
    note: &str,
    answer: &str,
    witness: &WitnessKey,
) -> Result<Option<String>, CheckpointError> {
    let (text, _) = note::split(note)?;
    let lines = note::lines(answer)?;
    judge(text, &lines, std::slice::from_ref(witness))?;
    let own = lines
        .iter()
        .filter(|line| line.name == witness.name() && line.key_hash == witness.key_hash())
        .map(|line| note::line(line.name, line.key_hash, &line.signature))
        .collect::<String>();
    Ok(Some(own).filter(|own| !own.is_empty()))
}

fn judge(
    text: &str,
    lines: &[note::Line<'_>],
    witnesses: &[WitnessKey],
) -> Result<Vec<Cosignature>, CheckpointError> {
    let mut found: Vec<Cosignature> = Vec::new();
    for line in lines {
        let known = witnesses
            .iter()
            .position(|witness| witness.name() == line.name && witness.key_hash() == line.key_hash);
        let Some((at, witness)) = known.and_then(|at| Some((at, witnesses.get(at)?))) else {
            continue;
        };
        let bad = || CheckpointError::BadSignature(witness.name().to_owned());
        let (time, signature) = line.signature.split_first_chunk::<8>().ok_or_else(bad)?;
        let time_s = u64::from_be_bytes(*time);
        signing::verify(witness.key(), b"", message(text, time_s).as_bytes(), signature)
            .map_err(|_| bad())?;
        if !found.iter().any(|known| known.witness == at) {
            found.push(Cosignature { witness: at, time_s });
        }
    }
    Ok(found)
}

fn message(text: &str, time_s: u64) -> String {
    format!("cosignature/v1\ntime {time_s}\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{self, Checkpoint, VerifierKey};

    fn sample() -> (String, SigningKey, WitnessKey) {
        let key = SigningKey::from_bytes(&[3; 32]);
        let head = Checkpoint { origin: "audit.example/log".to_owned(), size: 12, root: [5; 32] };
        let note = checkpoint::sign(&key, &head).unwrap();
        let witness = SigningKey::from_bytes(&[4; 32]);
        let public = WitnessKey::new("witness.example/w", witness.verifying_key().to_bytes());
        (note, witness, public.unwrap())
    }

    #[test]
    fn a_cosigned_note_reads_as_written_and_no_bit_of_it_may_change() {
        let (note, key, witness) = sample();
        let line = cosign(&key, witness.name(), &note, 1_679_315_147).unwrap();
        let cosigned = format!("{note}{line}");
        let found = cosignatures(&cosigned, std::slice::from_ref(&witness)).unwrap();
        assert_eq!(found, [Cosignature { witness: 0, time_s: 1_679_315_147 }]);
        let log = VerifierKey::new("audit.example/log", {
            SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes()
        });
        assert_eq!(checkpoint::open(&cosigned, &log.unwrap()).unwrap().size, 12);
        assert_eq!(taken_from_answer(&note, &line, &witness), Ok(Some(line.clone())));
        for bit in (0..line.len() * 8).step_by(5) {
            let mut changed = line.clone().into_bytes();
            changed[bit / 8] ^= 1 << (bit % 8);
            let Ok(changed) = String::from_utf8(changed) else { continue };
            let found = cosignatures(&format!("{note}{changed}"), std::slice::from_ref(&witness));
            assert!(found.is_err() || found.unwrap().is_empty(), "bit {bit}: {changed}");
        }
    }

    #[test]
    fn a_stranger_and_a_copied_signature_count_for_nothing() {
        let (note, key, witness) = sample();
        let stranger = cosign(&key, "other.example", &note, 7).unwrap();
        let with = format!("{note}{stranger}");
        assert_eq!(cosignatures(&with, std::slice::from_ref(&witness)), Ok(Vec::new()));
        assert_eq!(taken_from_answer(&note, &stranger, &witness), Ok(None));
        let line = cosign(&key, witness.name(), &note, 7).unwrap();
        let twice = format!("{note}{line}{line}");
        assert_eq!(cosignatures(&twice, std::slice::from_ref(&witness)).unwrap().len(), 1);
        let other = note.replace("\n12\n", "\n13\n");
        assert!(cosignatures(&format!("{other}{line}"), std::slice::from_ref(&witness)).is_err());
        assert_eq!(witness.to_string().parse::<WitnessKey>(), Ok(witness.clone()));
        assert!(witness.to_string().parse::<VerifierKey>().is_err(), "no log's key");
    }
}
