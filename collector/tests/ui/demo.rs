//! A night at a bank, small enough to read: what the review pages are tried and shown with.
//!
//! Two hosts, five service accounts, 21 November 2026. At 02:15 UTC one account reads customers.

use bytes::Bytes;
use prost::Message as _;
use tidegate_collector::serve::Running;
use tidegate_event::ChainId;
use tidegate_ledger::{Chain, chain_id};
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::decision::Verdict;
use tidegate_proto::audit::v1::operation::What;
use tidegate_proto::audit::v1::parameter::Value;
use tidegate_proto::audit::v1::{
    AuditRecord, Decision, Effect, Endpoint, Gap, Genesis, Heartbeat, Lifecycle, Login, Operation,
    Outcome, Parameter, Process, SessionClose, SessionOpen, Statement, lifecycle,
};

use crate::agent::FakeAgent;
use crate::home::{Home, indexed};

/// 2026-11-21T02:15:00Z in seconds.
pub const AT_0215: u64 = 1_795_227_300;

/// The session that reads customers at 02:15.
pub const STATEMENTS: [u8; 16] = *b"statements-02:15";
/// The session of a client that sends what could steer a reader.
pub const HOSTILE: [u8; 16] = *b"hostile-at-04:10";
/// A session on the other target.
pub const CARDS: [u8; 16] = *b"cards-fraud-0220";

/// Texts that no page may let act.
pub const HOSTILE_TEXTS: [&str; 3] = [
    "SELECT '</code><script>alert(1)</script><img src=x onerror=alert(2)>' FROM customers",
    "SELECT 1 -- \u{1b}[2J\u{1b}]0;owned\u{7} \u{9b}31m",
    "SELECT name FROM customers -- \u{202e}stnuocca TCELES\u{202c} \u{200b}\u{2066}x\u{2069} &amp; \"q\"",
];

/// A statement of the story.
#[derive(Clone, Default)]
struct Said<'a> {
    text: &'a str,
    kind: &'a str,
    effects: &'a [(&'a str, &'a str)],
    parameters: &'a [&'a str],
    verdict: Option<Verdict>,
    policy: &'a str,
    reason: &'a str,
    rows: u64,
    micros: u64,
    failed: &'a str,
    unknown: &'a str,
    unbounded: bool,
}

/// Who opens a session.
pub struct Who<'a> {
    pub session: [u8; 16],
    pub principal: &'a str,
    pub uid: u32,
    pub executable: &'a str,
    pub unit: &'a str,
    pub user: &'a str,
    pub database: &'a str,
    pub target: &'a str,
    pub mode: &'a str,
}

pub struct Story {
    agent: FakeAgent,
    at_ns: u64,
}

impl Story {
    pub fn new(id: &str, seed: u8, at_seconds: u64) -> Self {
        let mut agent = FakeAgent::new(id, seed);
        let audit_key = agent.key.verifying_key().to_bytes();
        let (boot, nonce) = ([seed; 16], [seed; 16]);
        agent.loose.clear();
        agent.chain = Chain::begin(chain_id(id, &boot, &audit_key, &nonce));
        let mut story = Self { agent, at_ns: at_seconds * 1_000_000_000 };
        story.put(
            None,
            None,
            Body::Genesis(Genesis {
                agent_id: id.to_owned(),
                boot_id: boot.to_vec().into(),
                nonce: nonce.to_vec().into(),
                audit_key: audit_key.to_vec().into(),
                host: format!("{id}.bank.example"),
                agent_version: "0.1.0".to_owned(),
                ..Genesis::default()
            }),
        );
        story
    }

    pub fn put(&mut self, session: Option<[u8; 16]>, cause: Option<u64>, body: Body) -> u64 {
        let chain = &mut self.agent.chain;
        let seq = chain.next_seq().0;
        let record = AuditRecord {
            v: 1,
            chain_id: chain.id().0.to_vec().into(),
            seq,
            prev: chain.head().to_vec().into(),
            wall_ns: self.at_ns,
            boot_ns: self.at_ns - (AT_0215 - 86_400) * 1_000_000_000 + seq,
            session_id: session.map_or(Bytes::new(), |id| id.to_vec().into()),
            cause_seq: cause,
            body: Some(body),
            ..AuditRecord::default()
        };
        let bytes = Bytes::from(record.encode_to_vec());
        chain.link(&bytes).unwrap();
        self.agent.loose.push(bytes);
        seq
    }

    fn at(&mut self, seconds: u64) {
        self.at_ns = self.at_ns.max(seconds * 1_000_000_000);
    }

    fn policy(&mut self, detail: &str) {
        let body = Lifecycle {
            kind: lifecycle::Kind::PolicyLoaded.into(),
            detail: detail.to_owned(),
            digest: vec![0xc4; 32].into(),
            ..Lifecycle::default()
        };
        self.put(None, None, Body::Lifecycle(body));
    }

    fn heartbeat(&mut self, captured: u64) {
        self.put(None, None, Body::Heartbeat(Heartbeat { captured, ..Heartbeat::default() }));
    }

    pub fn open(&mut self, who: &Who<'_>) {
        self.put(
            Some(who.session),
            None,
            Body::SessionOpen(SessionOpen {
                principal: who.principal.to_owned(),
                process: Some(Process {
                    uid: who.uid,
                    gid: who.uid,
                    pid: 40_000 + who.uid,
                    comm: who.executable.rsplit('/').next().unwrap().to_owned(),
                    executable: who.executable.to_owned(),
                    cgroup: format!("/system.slice/{}", who.unit),
                    ..Process::default()
                }),
                client: Some(Endpoint { address: "127.0.0.1".into(), port: 51_712 }),
                original: Some(Endpoint { address: "10.20.0.5".into(), port: 5432 }),
                target: who.target.to_owned(),
                protocol: "postgresql".to_owned(),
                mode: who.mode.to_owned(),
                ..SessionOpen::default()
            }),
        );
        let login = Login {
            user: who.user.to_owned(),
            database: who.database.to_owned(),
            application: who.executable.rsplit('/').next().unwrap().to_owned(),
            ..Login::default()
        };
        let said = Said { policy: "login", micros: 3_100, ..Said::default() };
        let what = What::Login(login);
        self.operation(who.session, &said, what, vec![effect("login", who.user, false)]);
    }

    fn say(&mut self, session: [u8; 16], said: &Said<'_>) {
        self.at_ns += 180_000_000;
        let statement = Statement {
            via: if said.parameters.is_empty() { "query" } else { "execute" }.to_owned(),
            text: said.text.to_owned(),
            text_bytes: u64::try_from(said.text.len()).unwrap(),
            kinds: vec![said.kind.to_owned()],
            parameters: said.parameters.iter().map(|value| parameter(value)).collect(),
            unknown: said.unknown.to_owned(),
            fingerprint: 0x5eed,
            ..Statement::default()
        };
        let effects = said.effects.iter();
        let effects = effects.map(|(action, relation)| effect(action, relation, said.unbounded));
        self.operation(session, said, What::Statement(statement), effects.collect());
    }

    fn operation(&mut self, session: [u8; 16], said: &Said<'_>, what: What, effects: Vec<Effect>) {
        let verdict = said.verdict.unwrap_or(Verdict::Allow);
        let policies = Some(said.policy.to_owned()).filter(|policy| !policy.is_empty());
        let seq = self.put(
            Some(session),
            None,
            Body::Operation(Operation {
                decision: Some(Decision {
                    verdict: verdict.into(),
                    reason: said.reason.to_owned(),
                    policies: policies.into_iter().collect(),
                    policy_digest: vec![0xc4; 32].into(),
                    durability: "host".to_owned(),
                    ..Decision::default()
                }),
                effects,
                what: Some(what),
                ..Operation::default()
            }),
        );
        if verdict == Verdict::Deny {
            return;
        }
        self.at_ns += said.micros * 1_000;
        let failed = !said.failed.is_empty();
        self.put(
            Some(session),
            Some(seq),
            Body::Outcome(Outcome {
                status: if failed { "failed" } else { "ok" }.to_owned(),
                code: if failed { "40P01" } else { "" }.to_owned(),
                message: said.failed.to_owned(),
                rows: said.rows,
                bytes_out: said.rows * 96,
                duration_ns: said.micros * 1_000,
                ..Outcome::default()
            }),
        );
    }

    pub fn close(&mut self, session: [u8; 16], operations: u64, refused: u64) {
        self.at_ns += 40_000_000;
        self.put(
            Some(session),
            None,
            Body::SessionClose(SessionClose {
                ended_by: "client".to_owned(),
                reason: "the client said goodbye".to_owned(),
                operations,
                refused,
                bytes_from_client: 2_310,
                bytes_from_server: 48_222,
            }),
        );
    }

    pub async fn deliver(&mut self, home: &Home, running: &Running) {
        let pass = home.enrol(running, &self.agent.id, &self.agent.key).await;
        let (mut wire, _) = home.greeted(running, &pass, None::<(ChainId, u64)>).await;
        wire.deliver(self.agent.batch()).await;
    }
}

pub fn effect(action: &str, relation: &str, unbounded: bool) -> Effect {
    let (schema, name) = relation.rsplit_once('.').unwrap_or(("", relation));
    Effect {
        action: action.to_owned(),
        schema: schema.to_owned(),
        relation: name.to_owned(),
        unbounded,
    }
}

fn parameter(text: &str) -> Parameter {
    Parameter { value: Some(Value::Text(text.as_bytes().to_vec().into())) }
}

/// Puts the night into the collector's log, and waits for the index and a checkpoint over all of it.
pub async fn fill(home: &Home, running: &Running) {
    core_night().deliver(home, running).await;
    cards_night().deliver(home, running).await;
    let entries = indexed(running).await;
    let newest = home.log().join("checkpoint");
    let over_all = || {
        let note = std::fs::read_to_string(&newest).unwrap_or_default();
        note.lines().nth(1).is_some_and(|size| size.parse::<u64>().unwrap() >= entries)
    };
    while !over_all() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn core_night() -> Story {
    let mut night = Story::new("core-app-01", 21, AT_0215 - 4 * 3600);
    night.policy("payments.cedar, statements.cedar: 14 policies");
    night.heartbeat(2);
    reports(&mut night);
    statements(&mut night);
    migration(&mut night);
    hostile(&mut night);
    night.heartbeat(61);
    night
}

fn statements(night: &mut Story) {
    let who = Who {
        session: STATEMENTS,
        principal: "svc-statements",
        uid: 991,
        executable: "/usr/lib/bank/statement-run",
        unit: "statement-run.service",
        user: "statements",
        database: "core",
        target: "core",
        mode: "enforce",
    };
    night.at(AT_0215 + 4);
    night.open(&who);
    let reads = Said { policy: "statements-read", ..Said::default() };
    let s = STATEMENTS;
    night.say(s, &Said { text: "BEGIN", kind: "begin", policy: "talk", micros: 210, ..reads });
    night.say(s, &Said {
        text: "SELECT c.id, c.name, c.street, c.town, a.number\n  FROM customers c\n  JOIN accounts a \
            ON a.customer_id = c.id\n WHERE c.branch = $1 AND a.closed IS NULL\n ORDER BY c.id",
        kind: "select",
        effects: &[("select", "public.customers"), ("select", "public.accounts")],
        parameters: &["Zürich-Enge"],
        rows: 212,
        micros: 18_400,
        ..reads
    });
    for (customer, rows) in [("40017", 31), ("40018", 4), ("40021", 112)] {
        night.say(
            s,
            &Said {
                text: "SELECT booked_on, amount, purpose FROM postings WHERE customer_id = $1 AND \
                booked_on >= $2",
                kind: "select",
                effects: &[("select", "public.postings")],
                parameters: &[customer, "2026-11-01"],
                rows,
                micros: 2_900 + rows * 20,
                ..reads
            },
        );
    }
    night.say(s, &Said {
        text: "INSERT INTO statements (customer_id, month, pages) SELECT id, $1, 2 FROM customers \
            WHERE branch = $2",
        kind: "insert",
        effects: &[("insert", "public.statements"), ("select", "public.customers")],
        parameters: &["2026-11", "Zürich-Enge"],
        policy: "statements-write",
        rows: 212,
        micros: 9_700,
        ..Said::default()
    });
    night.say(s, &Said { text: "COMMIT", kind: "commit", policy: "talk", micros: 6_200, ..reads });
    night.say(
        s,
        &Said {
            text: "SELECT pan, expires FROM card_numbers WHERE customer_id = 40017",
            kind: "select",
            effects: &[("select", "cards.card_numbers")],
            verdict: Some(Verdict::Deny),
            policy: "no-card-numbers",
            reason: "a policy forbids select on cards.card_numbers",
            ..Said::default()
        },
    );
    night.close(s, 9, 1);
}

fn reports(night: &mut Story) {
    let session = *b"reports-at-02:03";
    night.at(AT_0215 - 12 * 60);
    night.open(&Who {
        session,
        principal: "svc-reports",
        uid: 993,
        executable: "/usr/bin/python3.11",
        unit: "night-reports.service",
        user: "reporting",
        database: "core",
        target: "core",
        mode: "enforce",
    });
    let reads = Said { policy: "reports-read", kind: "select", ..Said::default() };
    for (branch, rows) in [("Basel", 1_804), ("Bern", 2_210), ("Chur", 377), ("Zug", 911)] {
        night.say(session, &Said {
            text: "SELECT branch, product, sum(balance) FROM accounts WHERE branch = $1 GROUP BY 1, 2",
            effects: &[("select", "public.accounts")],
            parameters: &[branch],
            rows: rows / 100,
            micros: 41_000 + rows * 9,
            ..reads
        });
    }
    night.say(
        session,
        &Said {
            text: "SELECT * FROM postings WHERE booked_on >= '2026-10-01'",
            effects: &[("select", "public.postings")],
            rows: 48_213,
            micros: 1_912_000,
            ..reads
        },
    );
    night.say(
        session,
        &Said {
            text: "UPDATE accounts SET reported = true",
            kind: "update",
            effects: &[("update", "public.accounts")],
            unbounded: true,
            verdict: Some(Verdict::Deny),
            policy: "no-unbounded-writes",
            reason: "a policy forbids update on public.accounts without WHERE",
            ..Said::default()
        },
    );
    night.say(
        session,
        &Said {
            text: "UPDATE accounts SET reported = true WHERE branch = 'Zug'",
            kind: "update",
            effects: &[("update", "public.accounts")],
            policy: "reports-write",
            failed: "deadlock detected",
            micros: 1_003_000,
            ..Said::default()
        },
    );
    night.close(session, 8, 1);
}

fn migration(night: &mut Story) {
    let session = *b"migrate-at-03:30";
    night.at(AT_0215 + 75 * 60);
    night.open(&Who {
        session,
        principal: "svc-migrate",
        uid: 995,
        executable: "/usr/bin/psql",
        unit: "deploy@42.service",
        user: "statements",
        database: "core",
        target: "core",
        mode: "shadow",
    });
    let shadow = Said {
        verdict: Some(Verdict::WouldDeny),
        reason: "no policy permits it; the target is in shadow mode",
        micros: 5_300,
        ..Said::default()
    };
    night.say(
        session,
        &Said {
            text: "ALTER TABLE statements ADD COLUMN language text",
            kind: "alter_table",
            effects: &[("ddl", "public.statements")],
            ..shadow
        },
    );
    night.say(
        session,
        &Said {
            text: "DO $$ BEGIN PERFORM repair_postings(); END $$",
            kind: "do",
            effects: &[("unknown", "")],
            unknown: "a DO block can do anything",
            ..shadow
        },
    );
    night.close(session, 3, 0);
}

fn hostile(night: &mut Story) {
    night.at(AT_0215 + 115 * 60);
    night.open(&Who {
        session: HOSTILE,
        principal: "svc-legacy",
        uid: 997,
        executable: "/opt/legacy/<b>run</b>",
        unit: "legacy.service",
        user: "legacy",
        database: "core",
        target: "core",
        mode: "enforce",
    });
    for text in HOSTILE_TEXTS {
        night.say(
            HOSTILE,
            &Said {
                text,
                kind: "select",
                effects: &[("select", "public.customers")],
                parameters: &["\u{1b}[31m<i>red</i>"],
                policy: "legacy",
                rows: 1,
                micros: 700,
                ..Said::default()
            },
        );
    }
    night.close(HOSTILE, 4, 0);
}

fn cards_night() -> Story {
    let mut night = Story::new("cards-app-01", 22, AT_0215 - 6 * 3600);
    night.policy("fraud.cedar: 6 policies");
    let gap = Gap {
        from_seq: 118,
        to_seq: 120,
        reason: "the host lost power before its spool was synced".to_owned(),
        chain_id: vec![9; 32].into(),
    };
    night.put(None, None, Body::Gap(gap));
    night.at(AT_0215 + 5 * 60);
    night.open(&Who {
        session: CARDS,
        principal: "svc-fraud",
        uid: 992,
        executable: "/usr/lib/jvm/java-17-openjdk-amd64/bin/java",
        unit: "fraud-score.service",
        user: "fraud",
        database: "cards",
        target: "cards",
        mode: "enforce",
    });
    for card in ["7731", "7732", "7790", "8012"] {
        night.say(
            CARDS,
            &Said {
                text: "SELECT merchant, amount FROM transactions WHERE card = $1 AND at > now() - \
                interval '1 hour'",
                kind: "select",
                effects: &[("select", "public.transactions")],
                parameters: &[card],
                policy: "fraud-read",
                rows: 17,
                micros: 1_900,
                ..Said::default()
            },
        );
    }
    night.close(CARDS, 5, 0);
    night.heartbeat(9);
    night
}
