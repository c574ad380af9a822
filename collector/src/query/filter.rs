//! What a question asks for, and its SQL.

use anyhow::Context as _;
use rusqlite::types::Value;
use serde::Serialize;

/// Everything that must hold of an answer.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Filter {
    /// Principal or database user, exactly.
    pub who: Option<String>,
    /// Target, exactly.
    pub target: Option<String>,
    /// Relation: `name`, or `schema.name`, which also finds statements that name no schema.
    pub table: Option<String>,
    /// Verdict, exactly.
    pub verdict: Option<String>,
    /// Kind of record, or of statement.
    pub kind: Option<String>,
    /// Part of the text, whatever the case.
    pub text: Option<String>,
    /// Agent, exactly.
    pub agent: Option<String>,
    /// Session id in hexadecimal.
    pub session: Option<String>,
    /// Executable: its whole path, or its last part.
    pub executable: Option<String>,
    /// What is done to the relation: `select`, `update`, ..
    pub action: Option<String>,
    /// At least so many rows.
    pub rows_min: Option<i64>,
    /// Only what was done at the collector itself, forks, and records that it misses.
    pub admin: bool,
    /// From this time on, by the agent's clock.
    pub since_ns: Option<i64>,
    /// Before this time.
    pub until_ns: Option<i64>,
    /// How many, the newest.
    pub limit: usize,
}

/// Kinds that only a `kind` filter shows: they come all the time.
const QUIET: &str = "'heartbeat', 'genesis', 'session_open', 'session_close', 'administration'";

/// What is in the collector's own chain.
const ADMIN: &str = "'administration', 'equivocation', 'missing', 'silence'";

#[derive(Default)]
struct Conditions {
    sql: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    /// Adds a condition in which `?` stands for the value, however often.
    fn add(&mut self, sql: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.sql.push(sql.replace('?', &format!("?{}", self.values.len())));
    }

    fn done(self) -> (String, Vec<Value>) {
        let sql = if self.sql.is_empty() { "TRUE".to_owned() } else { self.sql.join(" AND ") };
        (sql, self.values)
    }
}

impl Filter {
    /// The condition on operations.
    pub fn operations(&self) -> Option<(String, Vec<Value>)> {
        if self.admin {
            return None;
        }
        let mut all = self.common();
        if let Some(who) = &self.who {
            all.add("(o.who = ? OR s.db_user = ?)", who.clone());
        }
        if let Some(verdict) = &self.verdict {
            all.add("o.verdict = ?", verdict.clone());
        }
        if let Some(kind) = &self.kind {
            all.add(
                "(o.kind = ? OR instr(' ' || lower(o.kinds) || ' ', ' ' || lower(?) || ' ') > 0)",
                kind.clone(),
            );
        }
        if let Some(executable) = &self.executable {
            all.add(
                "(s.executable = ? OR substr(s.executable, -length(?) - 1) = '/' || ?)",
                executable.clone(),
            );
        }
        if let Some(rows) = self.rows_min {
            all.add("o.rows >= ?", rows);
        }
        self.effect(&mut all);
        Some(all.done())
    }

    /// One effect must fit relation and action together.
    fn effect(&self, all: &mut Conditions) {
        let mut sql = "EXISTS (SELECT 1 FROM effects e WHERE e.idx = o.idx".to_owned();
        let mut with = |condition: &str, value: &str| {
            all.values.push(value.to_owned().into());
            sql.push_str(&condition.replace('?', &format!("?{}", all.values.len())));
        };
        if let Some(table) = &self.table {
            match table.rsplit_once('.') {
                None => with(" AND e.relation = ?", table),
                Some((schema, name)) => {
                    with(" AND e.relation = ?", name);
                    with(" AND e.schema IN ('', ?)", schema);
                }
            }
        }
        if let Some(action) = &self.action {
            with(" AND e.action = lower(?)", action);
        }
        if self.table.is_some() || self.action.is_some() {
            all.sql.push(format!("{sql})"));
        }
    }

    /// The condition on everything else; `None` where the question is about operations only.
    pub fn lifecycle(&self) -> Option<(String, Vec<Value>)> {
        let about_operations = self.verdict.is_some()
            || self.table.is_some()
            || self.action.is_some()
            || self.executable.is_some()
            || self.rows_min.is_some();
        if about_operations {
            return None;
        }
        let mut all = self.common();
        if let Some(who) = &self.who {
            all.add("o.who = ?", who.clone());
        }
        match &self.kind {
            Some(kind) => all.add("o.kind = ?", kind.clone()),
            None if self.admin => all.sql.push(format!("o.kind IN ({ADMIN})")),
            None if self.session.is_some() => {}
            None => all.sql.push(format!("o.kind NOT IN ({QUIET})")),
        }
        Some(all.done())
    }

    fn common(&self) -> Conditions {
        let mut all = Conditions::default();
        if let Some(target) = &self.target {
            all.add("o.target = ?", target.clone());
        }
        if let Some(agent) = &self.agent {
            all.add("c.agent_id = ?", agent.clone());
        }
        if let Some(session) = &self.session {
            all.add("lower(hex(o.session_id)) = lower(?)", session.clone());
        }
        if let Some(text) = &self.text {
            all.add("instr(lower(o.text), lower(?)) > 0", text.clone());
        }
        if let Some(since) = self.since_ns {
            all.add("o.wall_ns >= ?", since);
        }
        if let Some(until) = self.until_ns {
            all.add("o.wall_ns < ?", until);
        }
        all
    }
}

/// A time as RFC 3339 (`2026-11-21T02:15:00Z`) or as an age (`90s`, `15m`, `2h`, `7d`).
pub fn parse_time(text: &str, now_ns: i64) -> anyhow::Result<i64> {
    if let Some((at, unit)) = text.char_indices().next_back()
        && let Some(seconds) = unit_seconds(unit)
        && let Some(Ok(count)) = text.get(..at).map(str::parse::<u32>)
    {
        let age_ns = i64::from(count).saturating_mul(seconds * 1_000_000_000);
        return Ok(now_ns.saturating_sub(age_ns));
    }
    let time: jiff::Timestamp = text.parse().with_context(|| {
        format!("{text:?} is no time: give 2026-11-21T02:15:00Z, or an age like 90s, 15m, 2h, 7d")
    })?;
    i64::try_from(time.as_nanosecond()).with_context(|| format!("{text:?} is too far away"))
}

/// The window that a moment means: its minute where no seconds are given, else its second. `HH:MM` and
/// `HH:MM:SS` are the last such moment, in UTC.
pub fn parse_moment(text: &str, now_ns: i64) -> anyhow::Result<(i64, i64)> {
    const DAY_NS: i64 = 86_400_000_000_000;
    let whole = match text.len() {
        5 | 8 if !text.contains('-') => {
            let today = crate::clock::rfc3339(now_ns);
            format!("{}T{text}Z", today.get(..10).unwrap_or_default())
        }
        _ => text.to_owned(),
    };
    let clock = whole.split_once('T').map_or("", |(_, clock)| clock);
    let minute = clock.trim_end_matches('Z').split([':', '+']).count() < 3;
    let whole = match whole.strip_suffix('Z') {
        Some(front) if minute => format!("{front}:00Z"),
        _ => whole,
    };
    let mut from = parse_time(&whole, now_ns)?;
    if whole.len() != text.len() && !text.contains('-') && from > now_ns {
        from -= DAY_NS;
    }
    let window = if minute { 60_000_000_000 } else { 1_000_000_000 };
    Ok((from, from.saturating_add(window)))
}

fn unit_seconds(unit: char) -> Option<i64> {
    match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_minute_or_a_second() {
        const SECOND: i64 = 1_000_000_000;
        // 1970-01-02T03:00:00Z
        let now = (86_400 + 3 * 3600) * SECOND;
        for (text, expected) in [
            ("1970-01-01T02:15Z", Some((8100, 60))),
            ("1970-01-01T02:15:07Z", Some((8107, 1))),
            ("02:15", Some((86_400 + 8100, 60))),
            ("04:00", Some((14_400, 60))),
            ("02:15:07", Some((86_400 + 8107, 1))),
            ("2 o'clock", None),
            ("", None),
        ] {
            let expected = expected.map(|(at, long)| (at * SECOND, (at + long) * SECOND));
            assert_eq!(parse_moment(text, now).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_time_is_a_moment_or_an_age() {
        let now = 1_000_000 * 1_000_000_000;
        for (text, expected) in [
            ("90s", Some(now - 90_000_000_000)),
            ("2h", Some(now - 7_200_000_000_000)),
            ("1970-01-01T00:00:02Z", Some(2_000_000_000)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("yesterday", None),
            ("5x", None),
            ("-5m", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text, now).ok(), expected, "{text:?}");
        }
    }
}
