//! Results of any size pass in bounded memory, masked, stopped or cut.

use super::protect::Protect;
use super::script::{Driver, columns, encode, frame, row, startup};
use tidegate_wire_postgres::{ClientTls, Limits};

/// What a machine may hold of a result, in bytes.
const HELD_BYTES_MAX: usize = 1024 * 1024;

fn session(protect: &str) -> Driver {
    let mut driver = Driver::new(ClientTls::Refuse, Limits::default());
    driver.client_says(&startup("user=u"));
    driver.server_says(&encode("ok"));
    driver.take("client <-");
    driver.protect(Some(Protect::read(protect)));
    driver
}

fn ask(driver: &mut Driver, text: &str) {
    driver.client_says(&frame(b'Q', format!("{text}\0").as_bytes()));
    driver.take("server <-");
}

/// Says it in reads as a driver makes them; the most bytes that were held between two.
fn say(driver: &mut Driver, bytes: &[u8]) -> usize {
    let held = bytes.chunks(64 * 1024).map(|part| {
        driver.server_says(part);
        driver.held_bytes()
    });
    held.max().unwrap_or_default()
}

fn values(message: &[u8]) -> Vec<Option<Vec<u8>>> {
    let length = usize::try_from(u32::from_be_bytes(message[1..5].try_into().unwrap())).unwrap();
    assert_eq!((message[0], length + 1), (b'D', message.len()));
    let mut values = Vec::new();
    let mut rest = &message[7..];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = i32::from_be_bytes(*length);
        let (value, after) = after.split_at(usize::try_from(length).unwrap_or(0));
        values.push((length >= 0).then(|| value.to_vec()));
        rest = after;
    }
    values
}

#[test]
fn a_long_row_is_masked_as_it_passes() {
    const LONG: usize = 8 * 1024 * 1024;
    let mut driver = session("protect on");
    ask(&mut driver, "SELECT /*ssn,city,name,pin,city*/");
    driver.server_says(&columns("ssn:25,city:25,name:25,note:25,city:25", 0));
    driver.take("client <-");
    let long = |byte: u8| Some(vec![byte; LONG]);
    let first = vec![Some(b"123-45-6789".to_vec()), long(b'c'), long(b'n'), None, long(b'd')];
    // `pin` is text here: it is made NULL, which can't be done behind the first part.
    let held = say(&mut driver, &row(first.clone().into_iter()));
    assert!(held < HELD_BYTES_MAX, "{held}");
    let refused = driver.take("client <-");
    assert!(refused.starts_with(b"E"), "withheld before anything of it was shown");
    driver.server_says(&encode("C[SELECT 1~] | Z[I]"));
    driver.take("client <-");
    ask(&mut driver, "SELECT /*ssn,city,name,mail,city*/");
    driver.server_says(&columns("ssn:25,city:25,name:25,mail:25,city:25", 0));
    driver.take("client <-");
    let held = say(&mut driver, &row(first.clone().into_iter()));
    assert!(held < HELD_BYTES_MAX, "{held}");
    let shown = values(&driver.take("client <-"));
    assert_eq!(shown[0].as_deref(), Some(&b"****"[..]));
    assert!(shown[1] == first[1] && shown[3].is_none() && shown[4] == first[4]);
    assert_eq!(shown[2], Some(vec![b'*'; LONG]), "as long as it was");
    driver.server_says(&encode("C[SELECT 1~] | Z[I]"));
    assert_eq!(driver.take("client <-"), encode("C[SELECT 1~] | Z[I]"));
}

#[test]
fn of_a_long_stopped_result_the_server_is_asked_to_cancel_the_rest() {
    for (protect, text, code) in [
        ("protect on", "SELECT /*!*/", "42501"),
        ("protect rows:2", "SELECT /*city*/", "53400"),
        ("protect bytes:5000", "COPY /*city*/ t TO STDOUT", "53400"),
    ] {
        let mut driver = session(protect);
        ask(&mut driver, text);
        let value = "x".repeat(1000);
        let one = if text.starts_with("COPY") {
            driver.server_says(&encode("H[~~\x01~~]"));
            frame(b'd', (value + "\n").as_bytes())
        } else {
            driver.server_says(&columns("x:25", 0));
            row(std::iter::once(Some(value.into_bytes())))
        };
        let held = say(&mut driver, &one.repeat(1000));
        assert!(held < HELD_BYTES_MAX, "{held}");
        let seen = driver.take("client <-");
        assert!(seen.len() < 8000, "{} bytes", seen.len());
        let error = format!("C{code}\0");
        assert!(seen.windows(error.len()).any(|part| part == error.as_bytes()), "{text}");
        let cancel = driver.take("cancel");
        assert_eq!(cancel, b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\0\0\0\x01", "once, with the key");
        driver.server_says(&encode("E[SERROR~VERROR~C57014~Mcanceling statement~~] | Z[I]"));
        assert_eq!(driver.take("client <-"), encode("Z[I]"));
        let outcome = driver.log().iter().rev().find(|(what, _)| what.starts_with("outcome"));
        assert!(outcome.unwrap().0.contains(code), "{outcome:?}");
    }
}
