//! Names of a message's parts, for those who index records or show them to people.
//!
//! Promise: a number that this version does not know gets a name that says so, never another's.

use crate::audit::v1::{self, audit_record::Body, parameter::Value};

/// The name of a decision's verdict, as queries use it.
pub fn verdict_name(verdict: i32) -> &'static str {
    use v1::decision::Verdict;
    match Verdict::try_from(verdict) {
        Ok(Verdict::Allow) => "allow",
        Ok(Verdict::Deny) => "deny",
        Ok(Verdict::WouldDeny) => "would_deny",
        Ok(Verdict::PassedOpen) => "passed_open",
        Ok(Verdict::Unspecified) | Err(_) => "unknown",
    }
}

/// The name of a `Lifecycle` kind.
pub fn lifecycle_name(kind: i32) -> &'static str {
    use v1::lifecycle::Kind;
    match Kind::try_from(kind) {
        Ok(Kind::Started) => "started",
        Ok(Kind::Stopping) => "stopping",
        Ok(Kind::Attached) => "attached",
        Ok(Kind::Detached) => "detached",
        Ok(Kind::PolicyLoaded) => "policy_loaded",
        Ok(Kind::ConfigLoaded) => "config_loaded",
        Ok(Kind::TargetResolved) => "target_resolved",
        Ok(Kind::Enrolled) => "enrolled",
        Ok(Kind::Warning) => "warning",
        Ok(Kind::Unspecified) | Err(_) => "unknown",
    }
}

/// The name of a `Bypass` phase.
pub fn bypass_phase_name(phase: i32) -> &'static str {
    use v1::bypass::Phase;
    match Phase::try_from(phase) {
        Ok(Phase::Start) => "start",
        Ok(Phase::End) => "end",
        Ok(Phase::Report) => "report",
        Ok(Phase::Unspecified) | Err(_) => "unknown",
    }
}

/// The name of a `Silence` phase.
pub fn silence_phase_name(phase: i32) -> &'static str {
    use v1::silence::Phase;
    match Phase::try_from(phase) {
        Ok(Phase::Began) => "began",
        Ok(Phase::Ended) => "ended",
        Ok(Phase::Unspecified) | Err(_) => "unknown",
    }
}

/// The name of a record's body.
pub fn kind_name(body: &Body) -> &'static str {
    use v1::operation::What;
    match body {
        Body::Genesis(_) => "genesis",
        Body::Lifecycle(_) => "lifecycle",
        Body::Heartbeat(_) => "heartbeat",
        Body::Gap(_) => "gap",
        Body::Bypass(_) => "bypass",
        Body::Recovered(_) => "recovered",
        Body::Finding(_) => "finding",
        Body::SessionOpen(_) => "session_open",
        Body::SessionRefused(_) => "session_refused",
        Body::SessionClose(_) => "session_close",
        Body::Operation(operation) => match &operation.what {
            Some(What::Login(_)) => "login",
            Some(What::Statement(_)) => "statement",
            Some(What::FunctionCall(_)) => "function_call",
            Some(What::Cancel(_)) => "cancel",
            Some(What::Ssh(_)) => "ssh",
            Some(What::File(_)) => "file",
            None => "operation",
        },
        Body::Outcome(_) => "outcome",
        Body::ResultRows(_) => "result_rows",
        Body::Administration(_) => "administration",
        Body::Equivocation(_) => "equivocation",
        Body::Missing(_) => "missing",
        Body::Silence(_) => "silence",
    }
}

/// A request on a file as a person reads it: its path, what it is to become, and how.
pub fn file_text(request: &v1::FileRequest) -> String {
    let mut text = request.path.clone();
    if !request.to.is_empty() {
        text.push_str(" -> ");
        text.push_str(&request.to);
    }
    for more in [&request.access, &request.attributes] {
        if !more.is_empty() {
            text.push_str(" (");
            text.push_str(more);
            text.push(')');
        }
    }
    text
}

/// A parameter as a person reads it. Binary values are in hexadecimal behind `\x`; a cut one says
/// how long it was.
pub fn parameter_text(parameter: &v1::Parameter) -> String {
    match &parameter.value {
        None => "unknown".to_owned(),
        Some(Value::Null(_)) => "NULL".to_owned(),
        Some(Value::Text(value)) => String::from_utf8_lossy(value).into_owned(),
        Some(Value::Binary(binary)) => format!("\\x{}", hexadecimal(&binary.value)),
        Some(Value::Cut(cut)) => {
            format!("{}.. ({} bytes)", String::from_utf8_lossy(&cut.head), cut.bytes)
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
