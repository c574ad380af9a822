//! No protected value leaves: random tables in every format and by every route, cut anywhere.
//!
//! Each protected value holds a random word of its own; none of the words may occur in what goes to the
//! client. What is not protected arrives, and without an order every byte is the same.

use proptest::prelude::*;
use tidegate_wire_postgres::{ClientTls, Limits};

use super::protect::{COLUMNS, Protect};
use super::script::{Driver, bind, columns, encode, execute, frame, parse, row, startup};

type Row = Vec<Option<Vec<u8>>>;

/// How a client comes to the rows.
#[derive(Debug, Clone, Copy)]
enum Route {
    Query,
    /// The client describes the portal.
    Described,
    /// The client describes nothing.
    Undescribed,
    Cursor,
    Prepared,
    Returning,
    CopyText,
    CopyCsv,
    CopyBinary,
    /// An error and a notice that quote the values.
    Error,
    /// What can't be told.
    Opaque,
}

const ROUTES: [Route; 11] = [
    Route::Query,
    Route::Described,
    Route::Undescribed,
    Route::Cursor,
    Route::Prepared,
    Route::Returning,
    Route::CopyText,
    Route::CopyCsv,
    Route::CopyBinary,
    Route::Error,
    Route::Opaque,
];

struct Session {
    driver: Driver,
    cuts: Vec<usize>,
    at: usize,
}

impl Session {
    fn new(cuts: &[usize], protect: Option<Protect>) -> Self {
        let mut driver = Driver::new(ClientTls::Refuse, Limits::default());
        driver.client_says(&startup("user=u"));
        driver.server_says(&encode("ok"));
        driver.take("client <-");
        driver.protect(protect);
        Self { driver, cuts: cuts.to_vec(), at: 0 }
    }

    fn client(&mut self, bytes: &[u8]) {
        self.driver.client_says(bytes);
    }

    fn server(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let cut = self.cuts[self.at % self.cuts.len()].min(rest.len());
            self.at += 1;
            let (part, after) = rest.split_at(cut);
            self.driver.server_says(part);
            rest = after;
        }
    }

    fn query(&mut self, text: &str, answer: &[u8]) {
        self.client(&frame(b'Q', format!("{text}\0").as_bytes()));
        self.server(&[answer, &frame(b'Z', b"I")].concat());
    }
}

const LIST: &str = "/*id,ssn,name,mail,card,pin,city*/";

fn described(binary: bool) -> Vec<u8> {
    let all: Vec<String> =
        COLUMNS.iter().map(|(name, _, type_oid)| format!("{name}:{type_oid}")).collect();
    columns(&all.join(","), u16::from(binary))
}

fn data_rows(rows: &[Row]) -> Vec<u8> {
    rows.iter().flat_map(|values| row(values.iter().cloned())).collect()
}

fn copied(route: Route, rows: &[Row]) -> Vec<u8> {
    let binary = matches!(route, Route::CopyBinary);
    let columns = u16::try_from(COLUMNS.len()).unwrap();
    let mut head = vec![u8::from(binary)];
    head.extend(columns.to_be_bytes());
    head.extend(vec![0; COLUMNS.len() * 2]);
    let mut data = Vec::new();
    if binary {
        data.extend(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    }
    for values in rows {
        if binary {
            data.extend(&row(values.iter().cloned())[5..]);
            continue;
        }
        let (between, null) = match route {
            Route::CopyText => (&b"\t"[..], &b"\\N"[..]),
            _ => (&b","[..], &b""[..]),
        };
        let written: Vec<Vec<u8>> =
            values.iter().map(|value| value.clone().unwrap_or(null.to_vec())).collect();
        data.extend(written.join(between));
        data.push(b'\n');
    }
    if binary {
        data.extend(b"\xff\xff");
    }
    let parts: Vec<u8> = data.chunks(37).flat_map(|part| frame(b'd', part)).collect();
    [frame(b'H', &head), parts, frame(b'c', b""), frame(b'C', b"COPY 1\0")].concat()
}

/// Takes the rows by a route.
fn take(session: &mut Session, route: Route, binary: bool, rows: &[Row]) {
    let (head, body) = (described(binary), data_rows(rows));
    let result = [&head[..], &body, &frame(b'C', b"SELECT 1\0")].concat();
    let format = if binary { "\0\x01\0\x01" } else { "\0\0" };
    let bound = [&bind("", "s", &[])[5..11], format.as_bytes()].concat();
    let bound = frame(b'B', &[&b"\0s\0\0\0\0\0"[..], &bound[6..]].concat());
    match route {
        Route::Query => session.query(&format!("SELECT {LIST}"), &result),
        Route::Returning => session.query(&format!("DELETE FROM t RETURNING {LIST}"), &result),
        Route::Opaque => session.query("SELECT /*!*/", &result),
        Route::Cursor => {
            let declared = frame(b'C', b"DECLARE CURSOR\0");
            session.query(&format!("DECLARE c CURSOR FOR SELECT {LIST}"), &declared);
            session.query("FETCH /*cursor c*/", &result);
            session.query("FETCH /*cursor unknown*/", &result);
        }
        Route::Prepared => {
            session.query(&format!("PREPARE p AS SELECT {LIST}"), &frame(b'C', b"PREPARE\0"));
            session.query("EXECUTE /*prepared p*/", &result);
        }
        Route::Described | Route::Undescribed => {
            let own = matches!(route, Route::Described);
            session.client(&parse("s", &format!("SELECT {LIST}")));
            session.client(&bound);
            if own {
                session.client(&frame(b'D', b"P\0"));
            }
            session.client(&[execute(""), frame(b'S', b"")].concat());
            // Without a Describe of the client's, there is one of the gate's where it is under an order.
            let asked = session.driver.take("server <-");
            let asks = asked.windows(7).any(|part| part == b"D\0\0\0\x06P\0");
            session.server(&[frame(b'1', b""), frame(b'2', b"")].concat());
            session.server(if asks { &result } else { &result[head.len()..] });
            session.server(&frame(b'Z', b"I"));
        }
        Route::CopyText => session.query(&format!("COPY {LIST} t TO STDOUT"), &copied(route, rows)),
        Route::CopyCsv => {
            let text = format!("COPY {LIST} t TO STDOUT (FORMAT csv)");
            session.query(&text, &copied(route, rows));
        }
        Route::CopyBinary => {
            let text = format!("COPY {LIST} t TO STDOUT (FORMAT binary)");
            session.query(&text, &copied(route, rows));
        }
        Route::Error => {
            for value in rows.iter().flat_map(|row| row[1..6].iter().flatten()) {
                let value = String::from_utf8_lossy(value);
                let error = format!(
                    "SERROR\0VERROR\0C22P02\0Minvalid input syntax for type integer: \"{value}\"\0\
                     DKey (ssn)=({value}) already exists.\0WCOPY t, line 1: \"{value}\"\0q{value}\0\0"
                );
                let raised =
                    format!("SNOTICE\0VNOTICE\0C00000\0M{value}\0WPL/pgSQL function f()\0\0");
                let cast =
                    format!("SERROR\0VERROR\0C42P01\0Mrelation \"{value}\" does not exist\0\0");
                session.query(
                    "SELECT /*=ssn*/",
                    &[frame(b'N', raised.as_bytes()), frame(b'E', error.as_bytes())].concat(),
                );
                session.query("SELECT /*=ssn*/", &frame(b'E', cast.as_bytes()));
            }
        }
    }
}

/// Values of a row: those of protected columns hold a word that nothing else holds.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let id = "[0-9]{1,4}";
    let word = || prop::option::weighted(0.85, "[a-z]{3}~[A-Z]{6}[0-9]{6}-[a-z]{0,60}");
    let pin = prop::option::weighted(0.85, "[0-9]{12}");
    let one = (id, word(), word(), word(), word(), pin, "Oslo|Bergen").prop_map(
        |(id, ssn, name, mail, card, pin, city)| {
            let bytes = |value: Option<String>| value.map(String::into_bytes);
            vec![
                Some(id.into_bytes()),
                bytes(ssn),
                bytes(name),
                bytes(mail),
                bytes(card),
                bytes(pin),
                Some(city.into_bytes()),
            ]
        },
    );
    proptest::collection::vec(one, 1..6)
}

/// The words of a protected value: its middle, which no mask keeps.
fn words(rows: &[Row]) -> Vec<Vec<u8>> {
    let values = rows.iter().flat_map(|row| row[1..6].iter().flatten());
    values.map(|value| value.get(4..12).unwrap().to_vec()).collect()
}

/// What the CopyData messages hold, as one piece.
fn copy_data(mut bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let [kind, a, b, c, d, rest @ ..] = bytes {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap() - 4;
        let (body, after) = rest.split_at(length);
        if *kind == b'd' {
            data.extend(body);
        }
        bytes = after;
    }
    data
}

fn occurs(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|part| part == word)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn no_protected_value_leaves(
        rows in rows(), route in prop::sample::select(ROUTES.to_vec()), binary: bool,
        catalogue: bool, cuts in proptest::collection::vec(1_usize..400, 1..8),
    ) {
        let protect = if catalogue { "protect catalogue" } else { "protect on" };
        let mut session = Session::new(&cuts, Some(Protect::read(protect)));
        take(&mut session, route, binary, &rows);
        let seen = session.driver.take("client <-");
        let seen = [&seen, &b" | "[..], &copy_data(&seen)].concat();
        for word in words(&rows) {
            prop_assert!(!occurs(&seen, &word), "{}", seen.escape_ascii());
        }
        let shows = !matches!(route, Route::Error | Route::Opaque);
        let city = rows[0][6].as_ref().unwrap();
        prop_assert_eq!(occurs(&seen, city), shows, "{}", seen.escape_ascii());
        let log = session.driver.log();
        let closed = log.iter().any(|(what, _)| what.starts_with("close"));
        prop_assert!(!closed, "{:?}", log.last());
    }

    #[test]
    fn without_an_order_every_byte_is_the_same(
        rows in rows(), route in prop::sample::select(ROUTES.to_vec()), binary: bool,
        cuts in proptest::collection::vec(1_usize..400, 1..8), cleared: bool,
    ) {
        let mut plain = Session::new(&[100_000], None);
        take(&mut plain, route, binary, &rows);
        // An order of which everything was cleared asks for nothing either; one in shadow mode counts.
        let all = "protect unmask:ssn unmask:name unmask:mail unmask:card unmask:pin";
        let shadow = "protect shadow catalogue";
        let protect = Protect::read(if cleared { all } else { shadow });
        let mut session = Session::new(&cuts, Some(protect));
        take(&mut session, route, binary, &rows);
        prop_assert_eq!(session.driver.take("client <-"), plain.driver.take("client <-"));
    }
}
