//! A record as an ArcSight Common Event Format line (CEF 0), for receivers that know nothing newer.
//!
//! Promise: header and extension are escaped so that no text of a client can begin a field or a line of its
//! own. Field by field: `docs/formats/syslog.md`.
//!
//! Cannot do: lists; several policies stand in one field, with commas. CEF has no place for the rest of
//! what the OCSF form says.

use std::fmt::Write as _;

use serde_json::Value;

use super::mapping::Item;

/// Keys of the extension, and where in the OCSF event each value is.
const FIELDS: &[(&str, &str)] = &[
    ("rt", "/time"),
    ("dvchost", "/src_endpoint/hostname"),
    ("externalId", "/metadata/uid"),
    ("suser", "/actor/user/name"),
    ("spid", "/actor/process/pid"),
    ("sproc", "/actor/process/file/path"),
    ("dst", "/dst_endpoint/ip"),
    ("dhost", "/dst_endpoint/hostname"),
    ("dpt", "/dst_endpoint/port"),
    ("destinationServiceName", "/dst_endpoint/svc_name"),
    ("duser", "/unmapped/audit.db.user"),
    ("act", "/authorizations/0/decision"),
    ("reason", "/authorizations/0/policy/desc"),
    ("cnt", "/unmapped/db.response.returned_rows"),
    ("out", "/unmapped/audit.bytes_out"),
    ("msg", "/message"),
];

/// Custom strings: number, label, and where the value is.
const CUSTOM: &[(u8, &str, &str)] = &[
    (1, "statement", "/query_info/query_string"),
    (2, "session", "/actor/session/uid"),
    (3, "database", "/database/name"),
    (4, "table", "/table/name"),
    (5, "alert", "/unmapped/audit.alert"),
];

/// The line of an OCSF event.
pub fn line(item: &Item, event: &Value) -> String {
    let text = |at: &str| event.pointer(at).map(plain).filter(|text| !text.is_empty());
    let severity = match item.record.severity_text.as_str() {
        "ERROR" => 8,
        "WARN" => 6,
        _ => 3,
    };
    let mut line = format!(
        "CEF:0|Tidegate|Tidegate|{}|{}|{}|{severity}|",
        env!("CARGO_PKG_VERSION"),
        header(&text("/type_uid").unwrap_or_default()),
        header(&item.record.event_name),
    );
    let mut between = "";
    let mut add = |key: &str, value: &str| {
        // Writing to a String cannot fail.
        _ = write!(line, "{between}{key}={}", extension(value));
        between = " ";
    };
    for (key, at) in FIELDS {
        if let Some(value) = text(at) {
            add(key, &value);
        }
    }
    for (number, label, at) in CUSTOM {
        if let Some(value) = text(at) {
            add(&format!("cs{number}Label"), label);
            add(&format!("cs{number}"), &value);
        }
    }
    let policies = event.pointer("/authorizations").and_then(Value::as_array);
    let names: Vec<&str> = policies
        .into_iter()
        .flatten()
        .filter_map(|one| one.pointer("/policy/name").and_then(Value::as_str))
        .collect();
    if !names.is_empty() {
        add("cs6Label", "policies");
        add("cs6", &names.join(","));
    }
    line
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// In the header, a bar and a backslash are escaped, and there are no lines.
fn header(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// In the extension, an equals sign and a backslash are escaped, and line ends are written out.
fn extension(text: &str) -> String {
    text.replace('\\', "\\\\").replace('=', "\\=").replace('\n', "\\n").replace('\r', "\\r")
}
