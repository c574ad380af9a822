//! The feed by syslog, to a receiver that gives up at first.

use tidegate_collector::config::{Export, ExportProtocol, SYSLOG_BYTES_MAX, SyslogFormat};
use tidegate_proto::audit::v1::decision::Verdict;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::agent::FakeAgent;
use crate::home::{Home, within};

/// Connections that are broken off before one is read to its end.
const GIVES_UP: usize = 2;

/// The places in the log of the messages that were read to the end, in their order.
async fn read_syslog(listener: &TcpListener) -> Vec<(u64, String)> {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let mut rest = text.as_str();
    let mut places = Vec::new();
    while let Some((length, behind)) = rest.split_once(' ') {
        let (message, behind) = behind.split_at(length.parse().unwrap());
        let (_, body) = message.split_once(" tidegate - ").unwrap();
        let (_, body) = body.split_once(" - ").unwrap();
        let event: serde_json::Value = serde_json::from_str(body).unwrap();
        let place = event["metadata"]["sequence"].as_u64().unwrap();
        places.push((place, event["metadata"]["event_code"].as_str().unwrap().to_owned()));
        rest = behind;
    }
    places
}

#[tokio::test]
async fn syslog_receives_each_record_in_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut home = Home::new();
    home.config.export = vec![Export {
        name: "siem".to_owned(),
        endpoint: format!("tcp://{}", listener.local_addr().unwrap()),
        protocol: ExportProtocol::Syslog,
        format: SyslogFormat::Ocsf,
        message_bytes_max: SYSLOG_BYTES_MAX,
        headers: [].into(),
        ca_file: None,
        records_max: 7,
        timeout_seconds: 10,
    }];
    let running = home.serve().await;
    let mut agent = FakeAgent::new("a", 1);
    let pass = home.enrol(&running, "a", &agent.key).await;
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    agent.session();
    for _ in 0..5 {
        agent.statement("select 1", "select", "public.accounts", Verdict::Allow);
        agent.statement("delete from t", "delete", "t", Verdict::Deny);
    }
    wire.deliver(agent.batch()).await;
    // It gives up twice: what it was sent comes again.
    for _ in 0..GIVES_UP {
        let (socket, _) = within(listener.accept()).await.unwrap();
        socket.peek(&mut [0; 1]).await.unwrap();
    }
    let mut taken: Vec<(u64, String)> = Vec::new();
    let statements = |taken: &[(u64, String)]| {
        taken.iter().filter(|(_, code)| code == "audit.db.statement").count()
    };
    while statements(&taken) < 10 {
        taken.extend(within(read_syslog(&listener)).await);
    }
    running.stop().await.unwrap();
    assert!(taken.is_sorted(), "{taken:?}");
    let mut once = taken.clone();
    once.dedup();
    assert_eq!(once, taken, "nothing came twice that was read to the end");
    assert_eq!(statements(&taken), 10);
}
