//! tokio-postgres as a client: everything in binary, portals in pieces, notices and notifications.
//!
//! The test runs its own program a second time, as the service account; that run prints what it gets.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::pin::pin;

use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{AsyncMessage, Client, NoTls, Row};
use tokio_stream::StreamExt as _;
use xtask::lab::client::run;
use xtask::lab::{Lab, Who};

/// Connection string for the run as the service account.
pub const CHILD: &str = "TIDEGATE_LAB_DSN";

const QUERIES: [&str; 12] = [
    "SELECT ssn, card, email, iban, account FROM customers",
    "SELECT * FROM customers",
    "SELECT ssn || '', account + 0, upper(iban) FROM customers",
    "SELECT array_agg(ssn), array_agg(account) FROM customers",
    "SELECT c FROM customers c",
    "SELECT to_jsonb(c), row_to_json(c) FROM customers c",
    "SELECT card::varchar(30), email::bytea FROM customers",
    "SELECT number FROM people",
    "SELECT * FROM everybody()",
    "UPDATE customers SET name = name RETURNING ssn, account",
    "SELECT o.id, c.* FROM orders o JOIN customers c ON c.id = o.id",
    "WITH a AS (SELECT card FROM customers) SELECT * FROM a",
];

/// A value as it came, whatever its type.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Everything that the client gets as `user`, as bytes in hexadecimal digits and as text.
pub fn received(lab: &Lab, dsn: &str, test: &str) -> Vec<u8> {
    let program = lab.path("masking_test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = lab.command(Who::Service, &program).unwrap();
    child.args(["--exact", test, "--nocapture"]).env(CHILD, dsn);
    let answer = run(&mut child, b"").unwrap();
    assert!(answer.ok() && answer.stdout.contains("all was read"), "{answer}");
    let mut bytes = answer.stdout.clone().into_bytes();
    // Values come as hexadecimal digits: what they stand for is searched too.
    for word in answer.stdout.split(|c: char| !c.is_ascii_hexdigit()) {
        bytes.extend(hex(word));
        bytes.push(b'\n');
    }
    bytes
}

fn hex(word: &str) -> Vec<u8> {
    let digits: Vec<u8> = word.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The run as the service account.
#[tokio::main(flavor = "current_thread")]
pub async fn as_the_service_account(dsn: &str) {
    for text in QUERIES {
        let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.unwrap();
        let reading = tokio::spawn(notices(connection));
        print(text, &simple(&client, text).await);
        print(text, &extended(&client, text).await);
        drop(client);
        print("notices", &reading.await.unwrap());
    }
    let (mut client, connection) = tokio_postgres::connect(dsn, NoTls).await.unwrap();
    let reading = tokio::spawn(notices(connection));
    print("portal", &portal(&mut client).await);
    print("copy", &copy(&client).await);
    drop(client);
    print("notices", &reading.await.unwrap());
    print("all", "was read");
}

#[expect(clippy::print_stdout, reason = "what a client got is what it prints")]
fn print(what: &str, text: &str) {
    println!("{what} {text}");
}

async fn notices(
    mut connection: tokio_postgres::Connection<
        tokio_postgres::Socket,
        tokio_postgres::tls::NoTlsStream,
    >,
) -> String {
    let mut text = String::new();
    while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => write!(text, "{notice:?}").unwrap(),
            Ok(AsyncMessage::Notification(told)) => text.push_str(told.payload()),
            Ok(_) => {}
            Err(error) => write!(text, "{error:?}").unwrap(),
        }
    }
    text
}

async fn simple(client: &Client, text: &str) -> String {
    format!("{:?}", client.simple_query(text).await)
}

async fn extended(client: &Client, text: &str) -> String {
    match client.query(text, &[]).await {
        Ok(rows) => rows.iter().map(shown).collect(),
        Err(error) => format!("{error:?}"),
    }
}

fn shown(row: &Row) -> String {
    let mut text = String::new();
    for at in 0..row.len() {
        let value: Option<Raw> = row.get(at);
        for byte in value.map(|raw| raw.0).unwrap_or_default() {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push(' ');
    }
    text
}

/// A portal that is read in pieces.
async fn portal(client: &mut Client) -> String {
    let transaction = client.transaction().await.unwrap();
    let portal = match transaction.bind("SELECT ssn, account FROM customers", &[]).await {
        Ok(portal) => portal,
        Err(error) => return format!("{error:?}"),
    };
    let mut text = String::new();
    for _ in 0..4 {
        match transaction.query_portal(&portal, 60).await {
            Ok(rows) => text.extend(rows.iter().map(shown)),
            Err(error) => write!(text, "{error:?}").unwrap(),
        }
    }
    text
}

async fn copy(client: &Client) -> String {
    let mut text = String::new();
    for statement in [
        "COPY customers TO STDOUT (FORMAT binary)",
        "COPY (SELECT ssn, account FROM customers) TO STDOUT (FORMAT binary)",
        "COPY customers TO STDOUT",
    ] {
        let stream = match client.copy_out(statement).await {
            Ok(stream) => stream,
            Err(error) => {
                write!(text, "{error:?}").unwrap();
                continue;
            }
        };
        let mut stream = pin!(stream);
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(bytes) => bytes.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap()),
                Err(error) => write!(text, "{error:?}").unwrap(),
            }
        }
        text.push(' ');
    }
    text
}
