//! The client and the reader against a server that answers as it is told.

use rsa::pkcs8::{EncodePublicKey as _, LineEnding};
use rsa::rand_core::UnwrapErr;
use rsa::{Oaep, RsaPrivateKey};
use sha1::Sha1;
use tidegate_event::Protocol;
use tokio::io::{DuplexStream, duplex};

use super::client::{greeting, log_in};
use super::packet::Packets;
use super::*;

const SCRAMBLE: &[u8; 20] = b"abcdefghijklmnopqrst";

/// A greeting that names that method.
fn hello(method: &str) -> Vec<u8> {
    let mut packet = b"\x0a8.0.40\0\x07\0\0\0".to_vec();
    packet.extend(&SCRAMBLE[..8]);
    // Everything but TLS.
    packet.extend(b"\0\xff\xf7\x2d\x02\0\xff\xff\x15");
    packet.extend([0; 10]);
    packet.extend(&SCRAMBLE[8..]);
    packet.push(0);
    packet.extend(method.as_bytes());
    packet.push(0);
    packet
}

/// A server that sends each of `says` and then reads a packet; what it read.
async fn server(stream: DuplexStream, says: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut packets = Packets::new(stream);
    let mut heard = Vec::new();
    for packet in says {
        packets.write(&packet).await.unwrap();
        if packet == [1, 3] {
            // The fast answer wants none.
            continue;
        }
        let mut answer = Vec::new();
        if packets.read(&mut answer).await.is_ok() {
            heard.push(answer);
        }
    }
    heard
}

fn login(password: &str) -> Login<'_> {
    Login {
        protocol: Protocol::Mysql,
        server: ([127, 0, 0, 1], 1).into(),
        verification: None,
        database: "",
        user: "tidegate",
        password: Some(password),
    }
}

/// How a login ends, and what the server heard.
async fn logs_in(says: Vec<Vec<u8>>) -> (Result<(), String>, Vec<Vec<u8>>) {
    let (ours, theirs) = duplex(1 << 16);
    let client = async {
        let mut packets = Packets::new(ours);
        let said = greeting(&mut packets).await?;
        log_in(packets, &said, login("secret")).await.map(drop)
    };
    let (ended, heard) = tokio::join!(client, server(theirs, says));
    (ended.map_err(|error| error.to_string()), heard)
}

#[tokio::test]
async fn each_method_answers_what_the_server_asks() {
    let ok = vec![0, 0, 0, 2, 0, 0, 0];
    let says = [hello("caching_sha2_password"), vec![1, 3]];
    let (ended, _) = logs_in(says.to_vec()).await;
    assert!(ended.unwrap_err().contains("the connection broke"), "without an OK no login");
    let (ended, heard) = logs_in([&says[..], std::slice::from_ref(&ok)].concat()).await;
    assert_eq!(ended, Ok(()));
    let response = &heard[0];
    let proof = auth::Method::CachingSha2.answer(b"secret", SCRAMBLE).unwrap();
    let has = |what: &[u8]| response.windows(what.len()).any(|at| at == what);
    assert!(has(b"tidegate\0") && has(&proof) && has(b"tidegate-catalogue"));
    assert!(!has(b"secret"));
    let mut switch = b"\xfeclient_ed25519\0".to_vec();
    switch.extend([7; 32]);
    let (ended, heard) = logs_in(vec![hello("mysql_native_password"), switch, ok.clone()]).await;
    assert_eq!(ended, Ok(()));
    assert_eq!(heard[1], auth::Method::Ed25519.answer(b"secret", &[7; 32]).unwrap());
    let (ended, heard) =
        logs_in(vec![hello("caching_sha2_password"), vec![1, 4], b"\x01no key".to_vec()]).await;
    let private = RsaPrivateKey::new(&mut UnwrapErr(getrandom::SysRng), 1024).unwrap();
    let key = private.to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
    let key = [b"\x01", key.as_bytes()].concat();
    let says = vec![hello("caching_sha2_password"), vec![1, 4], key, ok];
    let (in_full, sealed) = logs_in(says).await;
    assert_eq!(in_full, Ok(()));
    let opened = private.decrypt(Oaep::<Sha1>::new(), &sealed[2]).unwrap();
    let plain: Vec<u8> = opened.iter().zip(SCRAMBLE).map(|(byte, mask)| byte ^ mask).collect();
    assert_eq!(plain, b"secret\0");
    assert_eq!(ended.unwrap_err(), "the server sent an RSA key that can't be read");
    assert_eq!(heard[1], [2]);
}

#[tokio::test]
async fn what_a_server_may_not_ask_ends_the_login() {
    for (packet, expected) in [
        (b"\xff\x15\x04#28000Access denied".to_vec(), "Access denied (error 1045)"),
        (b"\xfe".to_vec(), "mysql_old_password"),
        (b"\xfemysql_clear_password\0".to_vec(), "\"mysql_clear_password\" is not spoken"),
        (vec![1, 4], "no answer to a login"),
        (b"\xfemysql_native_password\0short".to_vec(), "a scramble that is too short"),
    ] {
        let (ended, heard) = logs_in(vec![hello("mysql_native_password"), packet]).await;
        let error = ended.unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert_eq!(heard.len(), 1);
    }
    let (ended, _) = logs_in(vec![b"\xff\x69\x04Host is blocked".to_vec()]).await;
    assert_eq!(ended.unwrap_err(), "Host is blocked (error 1129)");
    let (ended, _) = logs_in(vec![b"\x09old".to_vec()]).await;
    assert_eq!(ended.unwrap_err(), "the server sent no greeting of MySQL");
}

/// Answers queries with these rows, by a part of their text; a cell `-` is NULL.
async fn answers(stream: DuplexStream, tables: &[(&str, &[&str])]) {
    let mut packets = Packets::new(stream);
    let mut query = Vec::new();
    loop {
        packets.begin();
        if packets.read(&mut query).await.is_err() {
            return;
        }
        let text = String::from_utf8(query[1..].to_vec()).unwrap();
        let Some((_, rows)) = tables.iter().find(|(part, _)| text.contains(part)) else {
            packets.write(&[0, 0, 0, 2, 0, 0, 0]).await.unwrap();
            continue;
        };
        let columns = text.split(" FROM ").next().unwrap().matches(',').count() + 1;
        packets.write(&[u8::try_from(columns).unwrap()]).await.unwrap();
        for _ in 0..columns {
            packets.write(b"\x03def").await.unwrap();
        }
        let end = [0xfe, 0, 0, 2, 0];
        packets.write(&end).await.unwrap();
        for row in *rows {
            let mut packet = Vec::new();
            for cell in row.split('|') {
                match cell {
                    "-" => packet.push(0xfb),
                    cell => {
                        packet.push(u8::try_from(cell.len()).unwrap());
                        packet.extend(cell.as_bytes());
                    }
                }
            }
            packets.write(&packet).await.unwrap();
        }
        packets.write(&end).await.unwrap();
    }
}

async fn reads(tables: &[(&str, &[&str])]) -> Result<Found, ReadError> {
    let (ours, theirs) = duplex(1 << 16);
    let reading = async {
        let mut client = Client::logged_in(Packets::new(ours));
        gather(&mut client, 1).await
    };
    tokio::join!(reading, answers(theirs, tables)).0
}

const BANK: [(&str, &[&str]); 4] = [
    (
        "information_schema.TABLES",
        &[
            "Bank|Customers|BASE TABLE|InnoDB",
            "Bank|people|VIEW|-",
            "Bank|hidden|VIEW|-",
            "bank|all_of_them|BASE TABLE|MRG_MyISAM",
            "bank|Twice|BASE TABLE|InnoDB",
            "BANK|twice|BASE TABLE|InnoDB",
        ],
    ),
    (
        "information_schema.COLUMNS",
        &[
            "Bank|Customers|SSN|2|",
            "Bank|Customers|ID|1|auto_increment",
            "Bank|Customers|Secret|3|INVISIBLE",
            "Bank|Customers|sum|4|STORED GENERATED",
            "Bank|people|Number|1|",
            "bank|Twice|a|1|",
            "bank|gone|a|1|",
        ],
    ),
    (
        "information_schema.VIEWS",
        &["Bank|people|select `SSN` AS `Number` from `Bank`.`Customers`", "Bank|hidden|"],
    ),
    (
        "information_schema.ROUTINES",
        &["Bank|F|SQL|RETURN 1", "Bank|P|SQL|-", "Bank|js|EXTERNAL|return 1"],
    ),
];

#[tokio::test]
async fn names_are_in_lower_case_and_what_is_not_known_is_no_table() {
    let found = reads(&BANK).await.unwrap();
    let named = |name: &str| Relation { schema: Some("bank".to_owned()), name: name.to_owned() };
    let relation = |name: &str| found.catalogue.relation(&named(name)).unwrap();
    let customers = relation("customers");
    assert_eq!(customers.kind, RelationKind::Table);
    let columns: Vec<_> = customers
        .columns
        .iter()
        .map(|column| (column.number, column.name.as_str(), column.generated))
        .collect();
    let expected = [(1, "id", false), (2, "ssn", false), (-3, "secret", false), (4, "sum", true)];
    assert_eq!(columns, expected);
    let people = relation("people");
    assert_eq!(people.kind, RelationKind::View);
    let definition = "select `SSN` AS `Number` from `Bank`.`Customers`";
    assert_eq!(people.definition.as_deref(), Some(definition));
    assert_eq!(relation("hidden").definition, None);
    assert_eq!(relation("all_of_them").kind, RelationKind::Foreign);
    let twice = relation("twice");
    assert_eq!(
        (twice.kind, &twice.definition, twice.columns.len()),
        (RelationKind::View, &None, 0)
    );
    assert_eq!(found.unread_views, 2);
    let source = |name: &str| {
        let [one] = found.catalogue.functions(&named(name)) else { panic!("{name}") };
        (one.language.clone(), one.source.clone())
    };
    assert_eq!(source("f"), ("sql".to_owned(), Some("RETURN 1".to_owned())));
    assert_eq!(source("p"), ("sql".to_owned(), None));
    assert_eq!(source("js"), ("external".to_owned(), None));
    let mut oids: Vec<u32> = found.catalogue.relations().map(|one| one.oid).collect();
    oids.sort_unstable();
    assert_eq!(oids, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn another_order_is_the_same_state_and_another_view_is_not() {
    let first = reads(&BANK).await.unwrap().state;
    let mut other = BANK;
    let mut rows = BANK[0].1.to_vec();
    rows.reverse();
    other[0].1 = &rows;
    assert_eq!(reads(&other).await.unwrap().state, first);
    other[2].1 = &["Bank|people|select 1 AS `Number`", "Bank|hidden|"];
    assert_ne!(reads(&other).await.unwrap().state, first);
    other[1].1 = &["Bank|Customers|SSN|x|"];
    assert!(matches!(reads(&other).await, Err(ReadError::Form(_))));
}
