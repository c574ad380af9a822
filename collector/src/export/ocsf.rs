//! A record as an OCSF 1.8 event in JSON: classes 6005 (Datastore Activity) and 1008 (Event Log Activity).
//!
//! Promise: everything that the OTLP feed says of a record is in it, what OCSF has no place for under
//! `unmapped`. Field by field: `docs/formats/syslog.md`.
//!
//! Cannot do: the `record_integrity` profile, which is in no released version; chain, place and leaf hash
//! are under `unmapped` until it is.

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use serde_json::{Map, Value, json};

use super::mapping::Item;

/// The version of the schema.
const OCSF_VERSION: &str = "1.8.0";
/// OCSF database type *Relational*.
const RELATIONAL: u8 = 1;

const NS_PER_MS: u64 = 1_000_000;

/// What a record's attributes say, taken one by one; what is left has no place of its own.
struct Attributes(Map<String, Value>);

impl Attributes {
    fn of(item: &Item) -> Self {
        let pairs = item.record.attributes.iter();
        Self(pairs.map(|pair| (pair.key.clone(), plain(pair.value.as_ref()))).collect())
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }
}

fn plain(value: Option<&AnyValue>) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Attribute::StringValue(text)) => Value::from(text.as_str()),
        Some(Attribute::IntValue(number)) => Value::from(*number),
        Some(Attribute::ArrayValue(list)) => {
            list.values.iter().map(|value| plain(Some(value))).collect()
        }
        _ => Value::Null,
    }
}

/// The pairs whose value is there.
fn object<const N: usize>(pairs: [(&str, Option<Value>); N]) -> Option<Value> {
    let pairs = pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let map: Map<String, Value> = pairs.collect();
    (!map.is_empty()).then_some(Value::Object(map))
}

/// The event.
pub fn event(item: &Item) -> Value {
    let record = &item.record;
    let mut said = Attributes::of(item);
    let class = said.take("ocsf.class_uid");
    let category = class.as_ref().and_then(Value::as_i64).map(|class| class / 1000);
    let session = said.take("session.id");
    let event = object([
        ("activity_id", said.take("ocsf.activity_id")),
        ("category_uid", category.map(Value::from)),
        ("class_uid", class),
        ("type_uid", said.take("ocsf.type_uid")),
        ("time", Some((record.time_unix_nano / NS_PER_MS).into())),
        ("severity_id", Some(severity(item).into())),
        ("message", Some(plain(record.body.as_ref()))),
        ("metadata", metadata(item, &mut said, session.clone())),
        ("actor", actor(&mut said, session)),
        ("src_endpoint", Some(json!({"hostname": item.host, "agent_uid": item.agent}))),
        ("dst_endpoint", destination(&mut said)),
        ("database", database(&mut said)),
        ("table", object([("name", said.take("db.collection.name"))])),
        ("query_info", object([("query_string", said.take("db.query.text"))])),
        ("action_id", said.take("ocsf.action_id")),
        ("disposition_id", said.take("ocsf.disposition_id")),
        ("authorizations", authorizations(&mut said)),
        ("status_code", said.take("db.response.status_code")),
        ("unmapped", Some(Value::Object(std::mem::take(&mut said.0)))),
    ]);
    event.unwrap_or_default()
}

/// OCSF severity: 1 informational, 3 medium, 4 high.
fn severity(item: &Item) -> u8 {
    match item.record.severity_text.as_str() {
        "ERROR" => 4,
        "WARN" => 3,
        _ => 1,
    }
}

fn metadata(item: &Item, said: &mut Attributes, session: Option<Value>) -> Option<Value> {
    let product = json!({
        "name": "Tidegate", "vendor_name": "Tidegate", "version": env!("CARGO_PKG_VERSION"),
    });
    let profiles = said.0.contains_key("ocsf.action_id").then(|| json!(["security_control"]));
    object([
        ("version", Some(OCSF_VERSION.into())),
        ("product", Some(product)),
        ("uid", said.take("log.record.uid")),
        ("sequence", said.take("audit.log.index")),
        ("log_name", said.take("audit.log.origin")),
        ("logged_time", Some((item.record.observed_time_unix_nano / NS_PER_MS).into())),
        ("event_code", Some(item.record.event_name.as_str().into())),
        ("correlation_uid", session),
        ("profiles", profiles),
    ])
}

fn actor(said: &mut Attributes, session: Option<Value>) -> Option<Value> {
    let process = object([
        ("pid", said.take("process.pid")),
        ("file", object([("path", said.take("process.executable.path"))])),
    ]);
    object([
        ("user", object([("name", said.take("user.name"))])),
        ("process", process),
        ("session", object([("uid", session)])),
    ])
}

fn destination(said: &mut Attributes) -> Option<Value> {
    let address = said.take("server.address");
    let is_ip = address
        .as_ref()
        .and_then(Value::as_str)
        .is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok());
    let (ip, host) = if is_ip { (address, None) } else { (None, address) };
    object([
        ("ip", ip),
        ("hostname", host),
        ("port", said.take("server.port")),
        ("svc_name", said.take("audit.target")),
    ])
}

fn database(said: &mut Attributes) -> Option<Value> {
    let kind = said.take("db.system.name")?;
    let name = said.take("db.namespace");
    object([
        ("name", name),
        ("type_id", Some(RELATIONAL.into())),
        ("type", Some("Relational".into())),
        ("desc", Some(kind)),
    ])
}

fn authorizations(said: &mut Attributes) -> Option<Value> {
    let verdict = said.take("audit.verdict")?;
    let version = said.take("security_rule.version");
    let reason = said.take("audit.reason");
    let names = said.take("security_rule.name").unwrap_or_default();
    let one = |name: Option<&Value>| {
        let policy = object([
            ("name", name.cloned()),
            ("version", version.clone()),
            ("desc", reason.clone()),
        ]);
        json!({"decision": verdict, "policy": policy})
    };
    let all: Vec<Value> = match names.as_array().filter(|names| !names.is_empty()) {
        Some(names) => names.iter().map(|name| one(Some(name))).collect(),
        None => vec![one(None)],
    };
    Some(all.into())
}
