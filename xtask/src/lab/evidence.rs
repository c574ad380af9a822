//! What the collector's index says, as its `query --json` prints it.
//!
//! Promises: events keep the order of the log; an operation carries what became of it. Limits: reads
//! only the fields that checks need; the whole object stays at hand in [`Event::json`].

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::Value;

/// What one event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A captured connection became a session.
    SessionOpen,
    /// A connection was refused before it became one.
    SessionRefused,
    /// A session ended.
    SessionClose,
    /// Something was asked and decided.
    Operation,
    /// The agent's own affairs: genesis, lifecycle, heartbeat, gap, bypass, recovered.
    Agent,
}

/// One event of the index.
#[derive(Debug, Clone)]
pub struct Event {
    /// As the collector printed it.
    pub json: Value,
}

impl Event {
    /// A field as text; empty where it is absent.
    pub fn text_of(&self, name: &str) -> &str {
        self.json.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field as a number.
    pub fn number_of(&self, name: &str) -> Option<u64> {
        self.json.get(name).and_then(Value::as_u64)
    }

    /// What it is about.
    pub fn kind(&self) -> Kind {
        match self.text_of("kind") {
            "session_open" => Kind::SessionOpen,
            "session_refused" => Kind::SessionRefused,
            "session_close" => Kind::SessionClose,
            _ if self.json.get("verdict").is_some() => Kind::Operation,
            _ => Kind::Agent,
        }
    }

    /// Its place in the log.
    pub fn index(&self) -> u64 {
        self.number_of("index").unwrap_or(u64::MAX)
    }

    /// Its place in its chain.
    pub fn seq(&self) -> u64 {
        self.number_of("seq").unwrap_or(u64::MAX)
    }

    /// Its chain.
    pub fn chain(&self) -> &str {
        self.text_of("chain")
    }

    /// Its session.
    pub fn session(&self) -> &str {
        self.text_of("session")
    }

    /// The statement's text, or one line on what happened.
    pub fn text(&self) -> &str {
        self.text_of("text")
    }

    /// How the statement came: `query`, `parse` or `execute`.
    pub fn via(&self) -> &str {
        self.text_of("kind")
    }

    /// `allow`, `deny`, `would_deny` or `passed_open`.
    pub fn verdict(&self) -> &str {
        self.text_of("verdict")
    }

    /// `ok`, `failed`, `suspended`, `skipped`, `lost`; empty while not known.
    pub fn status(&self) -> &str {
        self.text_of("status")
    }

    /// The parameters of a statement.
    pub fn parameters(&self) -> &[Value] {
        let list = self.json.get("parameters").and_then(Value::as_array);
        list.map(Vec::as_slice).unwrap_or_default()
    }
}

/// Everything in a collector's index, in the log's order.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The events.
    pub events: Vec<Event>,
}

impl Evidence {
    /// Reads the output of `query --json`: one JSON object a line.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let events = values
            .map(|value| value.map(|json| Event { json }))
            .collect::<Result<Vec<_>, _>>()
            .context("the collector's query --json")?;
        Ok(Self { events })
    }

    /// Puts the events of another question in their places.
    pub fn merge(&mut self, other: Self) {
        self.events.extend(other.events);
        self.events.sort_by_key(Event::index);
    }

    /// Statements with exactly this text, whatever way they came.
    pub fn statements<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a Event> {
        self.operations().filter(move |event| event.text() == text)
    }

    /// All operations.
    pub fn operations(&self) -> impl Iterator<Item = &Event> {
        self.of(Kind::Operation)
    }

    /// Events of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.kind() == kind)
    }

    /// Events of the agent's own, by the collector's name of their kind.
    pub fn named<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.text_of("kind") == kind)
    }

    /// The last statement with this text whose outcome is known.
    pub fn finished(&self, text: &str) -> Option<&Event> {
        self.operations().filter(|event| event.text() == text && !event.status().is_empty()).last()
    }

    /// Fails when the log holds something twice, or not in a chain's order. Holes are `verify`'s to
    /// find: the index shows operations without their outcomes' own places.
    pub fn is_in_order(&self) -> anyhow::Result<()> {
        let mut last = BTreeMap::<&str, u64>::new();
        let mut last_index = None;
        for event in &self.events {
            let (chain, seq, index) = (event.chain(), event.seq(), event.index());
            anyhow::ensure!(
                last_index.is_none_or(|last| last < index),
                "index {index} is there twice"
            );
            last_index = Some(index);
            if let Some(before) = last.insert(chain, seq) {
                anyhow::ensure!(before < seq, "chain {chain}: {seq} stands behind {before}");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_twice_or_out_of_order_is_found() {
        let line = |index: u64, seq: u64| {
            format!(
                r#"{{"chain":"a","seq":{seq},"index":{index},"kind":"query","verdict":"allow"}}"#
            )
        };
        let evidence = |lines: &[String]| Evidence::parse(&lines.join("\n")).unwrap();
        let good = evidence(&[line(3, 0), line(4, 2)]);
        assert_eq!(good.operations().count(), 2);
        assert!(good.is_in_order().is_ok());
        assert!(evidence(&[line(3, 2), line(4, 0)]).is_in_order().is_err());
        assert!(evidence(&[line(3, 0), line(3, 1)]).is_in_order().is_err());
        let mut merged = evidence(&[line(4, 2)]);
        merged.merge(evidence(&[line(3, 1)]));
        assert!(merged.is_in_order().is_ok());
    }
}
