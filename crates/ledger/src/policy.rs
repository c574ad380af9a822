//! C2SP tlog-policy: which log's key, which witnesses, and how many of them make a checkpoint good.
//!
//! Promise: a policy that does not read wholly is an error, never a weaker policy.
//!
//! Limits: [`POLICY_BYTES_MAX`], [`LINES_MAX`]; the file must be UTF-8 (the format allows any bytes in names);
//! keys are Ed25519.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::checkpoint::VerifierKey;
use crate::cosignature::WitnessKey;

/// Longest policy that is read, in bytes.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;
/// Most logs, witnesses and groups together.
pub const LINES_MAX: usize = 256;

const NONE: &str = "none";

/// Whom to believe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Logs, any of which may have signed.
    pub logs: Vec<VerifierKey>,
    /// Witnesses, by the policy's own names.
    pub witnesses: Vec<Witness>,
    /// Groups, each only of what stands before it.
    pub groups: Vec<Group>,
    /// The witness or group that must have signed; `None`: nobody.
    pub quorum: Option<String>,
}

/// A witness line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Its name in the policy.
    pub name: String,
    /// Its key.
    pub key: WitnessKey,
    /// Where it is asked, if the policy says.
    pub url: Option<String>,
}

/// A group line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How many members must have signed.
    pub threshold: usize,
    /// Witnesses or groups.
    pub members: Vec<String>,
}

/// Why a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy, line {line}: {what}")]
pub struct PolicyError {
    /// Which line, from 1; 0 for the whole.
    pub line: usize,
    /// In words.
    pub what: String,
}

impl Policy {
    /// A policy for one log, in which so many of these witnesses must have signed.
    pub fn of(log: VerifierKey, witnesses: Vec<Witness>, threshold: usize) -> Self {
        let members = witnesses.iter().map(|witness| witness.name.clone()).collect();
        let group = Group { name: "quorum".to_owned(), threshold, members };
        let asked = threshold > 0 && !witnesses.is_empty();
        Self {
            logs: vec![log],
            witnesses,
            quorum: asked.then(|| group.name.clone()),
            groups: if asked { vec![group] } else { Vec::new() },
        }
    }

    /// The witnesses' keys, in their order.
    pub fn keys(&self) -> Vec<WitnessKey> {
        self.witnesses.iter().map(|witness| witness.key.clone()).collect()
    }

    /// Whether these witnesses (by their place in the list) are enough.
    pub fn is_met(&self, signed: &[usize]) -> bool {
        let Some(quorum) = &self.quorum else { return true };
        let mut good: BTreeSet<&str> = BTreeSet::new();
        for (at, witness) in self.witnesses.iter().enumerate() {
            if signed.contains(&at) {
                good.insert(&witness.name);
            }
        }
        for group in &self.groups {
            let there = group.members.iter().filter(|member| good.contains(member.as_str()));
            if there.count() >= group.threshold {
                good.insert(&group.name);
            }
        }
        good.contains(quorum.as_str())
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let whole = |what: &str| PolicyError { line: 0, what: what.to_owned() };
        if text.len() > POLICY_BYTES_MAX {
            return Err(whole("longer than 64 KiB"));
        }
        if text.contains(|c: char| (c < ' ' && c != '\n' && c != '\t') || c == '\u{7f}') {
            return Err(whole("it has control characters"));
        }
        let mut reader = Reader::default();
        for (at, line) in text.split('\n').enumerate() {
            let words: Vec<&str> =
                line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            if words.first().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            reader.line(&words).map_err(|what| PolicyError { line: at + 1, what })?;
        }
        if !reader.has_quorum {
            return Err(whole("no quorum line"));
        }
        Ok(reader.policy)
    }
}

#[derive(Default)]
struct Reader {
    policy: Policy,
    /// Defined names, and whether a group already has them.
    names: BTreeMap<String, bool>,
    keys: BTreeSet<[u8; 32]>,
    lines: usize,
    has_quorum: bool,
}

impl Reader {
    fn line(&mut self, words: &[&str]) -> Result<(), String> {
        self.lines += 1;
        if self.lines > LINES_MAX {
            return Err(format!("more than {LINES_MAX} lines"));
        }
        match words {
            ["log", vkey] | ["log", vkey, _] => {
                let key: VerifierKey = vkey.parse().map_err(|error| format!("{error}"))?;
                self.new_key(key.key())?;
                self.policy.logs.push(key);
            }
            ["witness", name, vkey, url @ ..] if url.len() <= 1 => {
                let key: WitnessKey = vkey.parse().map_err(|error| format!("{error}"))?;
                self.new_key(key.key())?;
                self.new_name(name)?;
                let url = url.first().map(|url| (*url).to_owned());
                self.policy.witnesses.push(Witness { name: (*name).to_owned(), key, url });
            }
            ["group", name, count, members @ ..] if !members.is_empty() => {
                let threshold = match *count {
                    "all" => members.len(),
                    "any" => 1,
                    count => count
                        .parse()
                        .ok()
                        .filter(|k: &usize| k.to_string() == count)
                        .filter(|k| (1..=members.len()).contains(k))
                        .ok_or_else(|| format!("{count:?} of {} members", members.len()))?,
                };
                for member in members {
                    let used = self.names.get_mut(*member);
                    let used = used.ok_or_else(|| format!("{member:?} is not defined above"))?;
                    if std::mem::replace(used, true) {
                        return Err(format!("{member:?} is in a group already"));
                    }
                }
                self.new_name(name)?;
                let members = members.iter().map(|member| (*member).to_owned()).collect();
                self.policy.groups.push(Group { name: (*name).to_owned(), threshold, members });
            }
            ["quorum", name] => {
                if std::mem::replace(&mut self.has_quorum, true) {
                    return Err("a second quorum line".to_owned());
                }
                if *name != NONE {
                    if !self.names.contains_key(*name) {
                        return Err(format!("{name:?} is not defined above"));
                    }
                    self.policy.quorum = Some((*name).to_owned());
                }
            }
            _ => return Err("neither log, witness, group nor quorum, or too many words".to_owned()),
        }
        Ok(())
    }

    fn new_key(&mut self, key: &[u8; 32]) -> Result<(), String> {
        if self.keys.insert(*key) { Ok(()) } else { Err("a key that is there already".to_owned()) }
    }

    fn new_name(&mut self, name: &str) -> Result<(), String> {
        if name == NONE || self.names.insert(name.to_owned(), false).is_some() {
            return Err(format!("the name {name:?} is taken"));
        }
        Ok(())
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for log in &self.logs {
            writeln!(f, "log {log}")?;
        }
        for witness in &self.witnesses {
            write!(f, "witness {} {}", witness.name, witness.key)?;
            match &witness.url {
                Some(url) => writeln!(f, " {url}")?,
                None => writeln!(f)?,
            }
        }
        for group in &self.groups {
            writeln!(f, "group {} {} {}", group.name, group.threshold, group.members.join(" "))?;
        }
        writeln!(f, "quorum {}", self.quorum.as_deref().unwrap_or(NONE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;

    fn witness(seed: u8) -> String {
        let key = SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes();
        WitnessKey::new(&format!("w{seed}.example"), key).unwrap().to_string()
    }

    fn sample(quorum: &str) -> String {
        let log = SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes();
        let log = VerifierKey::new("audit.example", log).unwrap();
        let (a, b, c) = (witness(1), witness(2), witness(3));
        format!(
            "# ours\n\tlog {log}  https://log.example\nwitness A {a}\nwitness B {b} http://b\n\
             witness C {c}\ngroup AB 1 A B\ngroup all-of-it all AB C\nquorum {quorum}\n"
        )
    }

    #[test]
    fn a_quorum_is_met_by_enough_of_its_members() {
        for (quorum, signed, expected) in [
            ("none", vec![], true),
            ("A", vec![], false),
            ("A", vec![0], true),
            ("AB", vec![1], true),
            ("all-of-it", vec![0, 1], false),
            ("all-of-it", vec![2], false),
            ("all-of-it", vec![1, 2], true),
        ] {
            let policy: Policy = sample(quorum).parse().unwrap();
            assert_eq!(policy.is_met(&signed), expected, "{quorum} {signed:?}");
            assert_eq!(policy.to_string().parse(), Ok(policy), "written and read");
        }
    }

    #[test]
    fn what_is_no_whole_policy_is_refused() {
        let (a, b) = (witness(1), witness(2));
        for text in [
            String::new(),
            "quorum A\n".into(),
            "quorum none\nquorum none\n".into(),
            format!("witness none {a}\nquorum none\n"),
            format!("witness A {a}\nwitness A {b}\nquorum A\n"),
            format!("witness A {a}\nwitness B {a}\nquorum A\n"),
            format!("group G any A\nwitness A {a}\nquorum G\n"),
            format!("witness A {a}\ngroup G 2 A\nquorum G\n"),
            format!("witness A {a}\ngroup G 0 A\nquorum G\n"),
            format!("witness A {a}\ngroup G 01 A\nquorum G\n"),
            format!("witness A {a}\ngroup G any A A\nquorum G\n"),
            format!("witness A {a}\ngroup G any A\ngroup H any A G\nquorum G\n"),
            format!("log {a}\nquorum none\n"),
            format!("witness A {a} u v\nquorum A\n"),
            format!("witness A {a}\r\nquorum A\n"),
        ] {
            assert!(text.parse::<Policy>().is_err(), "{text:?}");
        }
    }
}
