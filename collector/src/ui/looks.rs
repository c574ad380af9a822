//! Looks and sign-offs: acts in the collector's own chain, written and read back.
//!
//! Promise: [`keep`] returns when the act is on the disk; a serving collector moves it into the log
//! within a second (`acts`). Reading takes what waits and what the log's index has, each once.
//!
//! Limits: a question is kept up to [`QUESTION_CHARS_MAX`], an act's detail up to
//! [`DETAIL_BYTES_MAX`]; [`ACTS_READ_MAX`] acts are read back, the newest.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::Ui;
use super::roles::Scope;
use super::store::User;
use crate::acts::{Act, DETAIL_BYTES_MAX};
use crate::clock::{rfc3339, signed_ns};
use crate::index;
use crate::query::{Filter, ask, parse_time};
use crate::state::State;

/// The act of looking.
pub const LOOKED: &str = "looked";
/// The act of signing off.
pub const SIGNED_OFF: &str = "signed_off";
/// The act of making a one-time link.
pub const LINK_MADE: &str = "link_made";

/// Characters of a question that are kept.
pub const QUESTION_CHARS_MAX: usize = 1_000;
/// Acts of one kind that are read back for a page.
pub const ACTS_READ_MAX: usize = 10_000;

/// One look at something: a page, a question, an export.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// In which role.
    #[serde(default)]
    pub role: String,
    /// Which page.
    pub page: String,
    /// The whole question: path and query of the URL.
    #[serde(default)]
    pub question: String,
    /// How many answers were shown.
    pub answers: u64,
    /// First and last log index of what was shown.
    pub range: Option<(u64, u64)>,
}

impl Look {
    /// A look at a page without answers.
    pub fn at(page: &str) -> Self {
        Self { page: page.to_owned(), ..Self::default() }
    }
}

/// A sign-off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignOff {
    /// Log index of the operation.
    pub entry: u64,
    /// Whose operation it was.
    pub principal: String,
    /// `as_expected` or `follow_up`.
    pub outcome: String,
    /// Why.
    pub comment: String,
}

/// An act that was kept.
#[derive(Debug, Clone)]
pub struct Kept<T> {
    /// Its log index; `None` while it waits for its second.
    pub index: Option<u64>,
    /// When.
    pub at_ns: i64,
    /// Who.
    pub who: String,
    /// What.
    pub what: T,
}

/// Keeps a look; its number.
pub fn keep(state: &State, user: &User, question: &str, look: &Look) -> anyhow::Result<u64> {
    let mut question: String = question.chars().take(QUESTION_CHARS_MAX + 1).collect();
    if question.chars().count() > QUESTION_CHARS_MAX {
        question.pop();
        question.push('…');
    }
    let look = Look { role: user.role.name().to_owned(), question, ..look.clone() };
    write(state, &user.name, LOOKED, &look)
}

/// Keeps a sign-off.
pub fn sign_off(state: &State, user: &User, sign: &SignOff) -> anyhow::Result<u64> {
    write(state, &user.name, SIGNED_OFF, sign)
}

fn write(
    state: &State,
    who: &str,
    act: &'static str,
    what: &impl Serialize,
) -> anyhow::Result<u64> {
    let detail = serde_json::to_string(what)?;
    anyhow::ensure!(detail.len() <= DETAIL_BYTES_MAX, "an act of {} bytes", detail.len());
    state.act_by(who, &Act::new(act, detail))
}

/// Looks in this time, the newest first.
pub fn looks(ui: &Ui, since: Option<i64>, until: Option<i64>) -> anyhow::Result<Vec<Kept<Look>>> {
    let mut looks = read(ui, LOOKED, since, until)?;
    looks.reverse();
    Ok(looks)
}

/// All sign-offs, the oldest first.
pub fn sign_offs(ui: &Ui) -> anyhow::Result<Vec<Kept<SignOff>>> {
    read(ui, SIGNED_OFF, None, None)
}

fn read<T: for<'de> Deserialize<'de>>(
    ui: &Ui,
    act: &str,
    since_ns: Option<i64>,
    until_ns: Option<i64>,
) -> anyhow::Result<Vec<Kept<T>>> {
    // What waits first: an act that moves meanwhile is then found twice, and told once.
    let waiting = ui.state.waiting_acts(0, ACTS_READ_MAX)?;
    let filter = Filter {
        admin: true,
        kind: Some("administration".to_owned()),
        text: Some(format!("{act} {{")),
        since_ns,
        until_ns,
        limit: ACTS_READ_MAX,
        ..Filter::default()
    };
    let db = index::open_for_reading(&ui.paths.index())?;
    let mut kept = Vec::new();
    let mut seen = BTreeSet::new();
    for answer in ask(&db, &filter)? {
        let Some(detail) = detail(&answer.text, act) else { continue };
        seen.insert((answer.time.clone(), answer.text.clone()));
        let at_ns = parse_time(&answer.time, 0)?;
        let what = serde_json::from_str(detail).with_context(|| format!("act {}", answer.index))?;
        kept.push(Kept { index: Some(answer.index), at_ns, who: answer.who, what });
    }
    for act_of in waiting.into_iter().filter(|waiting| waiting.body.act == act) {
        let at_ns = signed_ns(act_of.wall_ns);
        let text = format!("{act} {}", act_of.body.detail);
        let within = since_ns.is_none_or(|since| at_ns >= since)
            && until_ns.is_none_or(|until| at_ns < until);
        if within && !seen.contains(&(rfc3339(at_ns), text)) {
            let what = serde_json::from_str(&act_of.body.detail)
                .with_context(|| format!("waiting act {}", act_of.id))?;
            kept.push(Kept { index: None, at_ns, who: act_of.body.who, what });
        }
    }
    Ok(kept)
}

fn detail<'a>(text: &'a str, act: &str) -> Option<&'a str> {
    text.strip_prefix(act)?.strip_prefix(' ').filter(|detail| detail.starts_with('{'))
}

/// What is recorded of a link that is made.
#[derive(Serialize)]
pub struct LinkMade<'a> {
    /// For whom.
    pub name: &'a str,
    /// In which role.
    pub role: &'a str,
    /// Within which scope.
    pub scope: &'a Scope,
    /// Principals that the person runs.
    pub operates: &'a [String],
}

/// Records that a link is made.
pub fn link_made(state: &State, link: &LinkMade<'_>) -> anyhow::Result<()> {
    state.act(&Act::new(LINK_MADE, serde_json::to_string(link)?))
}
