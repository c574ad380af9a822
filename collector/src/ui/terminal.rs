//! What ran over SSH wrote, on a session's page and for a player.
//!
//! Promises: the page shows text alone, without any control sequence, and says where it is cut; the file for a
//! player holds nothing that could harm its terminal. Both are looks at evidence, and recorded as such.
//!
//! Limits: [`SHOWN_BYTES_MAX`] of each operation on the page. Known gap: the page has no player of its own.

use std::collections::BTreeMap;

use maud::{Markup, html};
use rusqlite::Connection;

use super::looks::Look;
use super::routes::{Context, Problem, Reply};
use super::session::see;
use super::text;
use crate::query::{self, Answer};

/// Bytes of one operation's output that a page shows.
const SHOWN_BYTES_MAX: usize = 64 * 1024;

/// Media type of an asciicast.
const CAST: &str = "application/x-asciicast";

/// What operations wrote, by their log index: the text, and whether there is more.
pub type Texts = BTreeMap<u64, (String, bool)>;

/// The texts of those answers whose output is kept.
pub fn texts(db: &Connection, answers: &[Answer]) -> anyhow::Result<Texts> {
    let mut found = Texts::new();
    for answer in answers.iter().filter(|answer| keeps(answer)) {
        let (written, more) = query::written_head(db, answer, SHOWN_BYTES_MAX)?;
        if !written.is_empty() {
            found.insert(answer.index, (query::written_text(&written), more));
        }
    }
    Ok(found)
}

/// Whether it ran over SSH, and something of its output is kept.
fn keeps(answer: &Answer) -> bool {
    let runs = matches!(answer.kind.as_str(), "exec" | "shell" | "subsystem");
    let result = answer.operation.as_ref().and_then(|operation| operation.result.as_ref());
    runs && result.and_then(|result| result.get("kept")?.as_u64()).is_some_and(|kept| kept > 0)
}

/// The text of one operation, folded.
pub fn shown(session: &str, index: u64, texts: &Texts) -> Markup {
    let Some((written, more)) = texts.get(&index) else { return html! {} };
    html! {
        details {
            summary { "What it wrote" @if *more { ", its beginning" } }
            pre { code { (text::long(written)) } }
            p { a href={ "/session/" (session) "/terminal/" (index) } { "For a player, as an asciicast" } }
        }
    }
}

/// What was carried of a file.
pub fn carried(carried: &serde_json::Value) -> Markup {
    let bytes = |key: &str| -> u64 {
        let ranges = carried.get(key).and_then(serde_json::Value::as_array);
        ranges.into_iter().flatten().filter_map(|range| range.get("bytes")?.as_u64()).sum()
    };
    let (read, written) = (bytes("read"), bytes("written"));
    let digest = carried.get("sha256").and_then(serde_json::Value::as_str).unwrap_or_default();
    html! {
        @if read + written > 0 {
            p.dim {
                (read) " bytes read, " (written) " written"
                @if !digest.is_empty() { "; whole, SHA-256 " code { (text::short(digest)) } }
            }
        }
    }
}

/// `/session/ID/terminal/INDEX`: one operation's output as an asciicast.
pub fn cast(context: &Context) -> Result<Reply, Problem> {
    let seen = see(context)?;
    let none = || Problem::Missing("Nothing that this operation wrote is kept.".into());
    let index: u64 = context.segment(3).parse().map_err(|_| none())?;
    let found = seen.answers.iter().find(|answer| answer.index == index && keeps(answer));
    let mut answers = vec![found.cloned().ok_or_else(none)?];
    let reader = super::read::Reader::open(&context.ui, &context.user.scope)?;
    query::fill(&reader.db, &mut answers)?;
    let mut bytes = Vec::new();
    for answer in &answers {
        query::write_cast(&mut bytes, answer)?;
    }
    let look = Look { page: "session, terminal".into(), ..super::ask::looked(&answers) };
    Ok(Reply::file(look, format!("session-{}-{index}.cast", seen.id), CAST, bytes))
}
