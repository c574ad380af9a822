//! Checkpoints: the published format, and what must be refused.

use super::*;

/// The example of Go's `golang.org/x/mod/sumdb/note`.
const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

#[test]
fn a_note_of_another_implementation_verifies() {
    let key: VerifierKey = GO_KEY.parse().unwrap();
    assert_eq!(key.to_string(), GO_KEY);
    assert!(verified_text(GO_NOTE, &key).unwrap().ends_with("your problem is.\n"));
    assert!(matches!(open(GO_NOTE, &key), Err(CheckpointError::Body(_))));
}

fn sample() -> (SigningKey, VerifierKey, Checkpoint) {
    let key = SigningKey::from_bytes(&[3; 32]);
    let verifier = VerifierKey::new("audit.example/log", key.verifying_key().to_bytes()).unwrap();
    let checkpoint = Checkpoint { origin: "audit.example/log".to_owned(), size: 12, root: [5; 32] };
    (key, verifier, checkpoint)
}

#[test]
fn a_checkpoint_reads_as_written_and_no_bit_of_it_may_change() {
    let (key, verifier, checkpoint) = sample();
    let note = sign(&key, &checkpoint).unwrap();
    assert_eq!(open(&note, &verifier), Ok(checkpoint));
    for bit in 0..note.len() * 8 {
        let mut changed = note.clone().into_bytes();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(changed) = String::from_utf8(changed) {
            assert!(open(&changed, &verifier).is_err(), "bit {bit}: {changed}");
        }
    }
}

#[test]
fn signatures_of_others_are_passed_over_and_none_is_not_enough() {
    let (key, verifier, checkpoint) = sample();
    let note = sign(&key, &checkpoint).unwrap();
    let witness = format!("{note}\u{2014} witness.example AAAAAAAAAAAAAAAAAAAAAAAAAAA=\n");
    assert_eq!(open(&witness, &verifier), Ok(checkpoint.clone()));
    let other = SigningKey::from_bytes(&[4; 32]);
    let forged = sign(&other, &checkpoint).unwrap();
    assert_eq!(
        open(&forged, &verifier),
        Err(CheckpointError::NotSigned("audit.example/log".to_owned()))
    );
    let elsewhere = Checkpoint { origin: "other.example".to_owned(), ..checkpoint };
    assert!(open(&sign(&key, &elsewhere).unwrap(), &verifier).is_err());
}

#[test]
fn what_is_no_note_or_key_is_refused() {
    let (_, verifier, _) = sample();
    for note in
        ["", "\n", "\n\n", "a\n\nb\n", "a\n1\nAA==\n\n\u{2014} a b\n", "a\r\n\n\u{2014} a AA==\n"]
    {
        assert!(open(note, &verifier).is_err(), "{note:?}");
    }
    for key in [
        "",
        "a",
        "a+b",
        "a+00000000+AQ==",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ] {
        assert!(key.parse::<VerifierKey>().is_err(), "{key:?}");
    }
    assert!(VerifierKey::new("a b", [0; 32]).is_err());
}
