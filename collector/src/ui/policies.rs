//! Policies, as the log says that they were in force: digests by agent, and what each policy decided.
//!
//! Cannot: show a policy's text, which only the agent has; the digest tells whether a text that you hold
//! is the one.

use std::collections::BTreeMap;

use maud::html;

use super::looks::Look;
use super::page::{self, Page, count, table};
use super::read::Reader;
use super::routes::{Context, Problem, Reply};
use super::{export, text, words};

/// One digest at one agent.
pub struct InForce {
    /// The agent.
    pub agent: String,
    /// Digest of the policy set, hexadecimal.
    pub digest: String,
    /// First decision by it.
    pub first_ns: i64,
    /// Last decision by it.
    pub last_ns: i64,
    /// Decisions.
    pub decisions: u64,
}

/// Decisions of one policy: name, and how many of each verdict.
pub type Decided = BTreeMap<(String, String), u64>;

/// Digests in force, and what policies decided, within the scope.
pub fn in_force(context: &Context) -> anyhow::Result<(Vec<InForce>, Decided)> {
    let scope = &context.user.scope;
    let reader = Reader::open(&context.ui, scope)?;
    let within = "(?1 IS NULL OR o.target = ?1) AND (?2 IS NULL OR c.agent_id = ?2)
        AND (?3 IS NULL OR o.wall_ns >= ?3) AND (?4 IS NULL OR o.wall_ns < ?4)";
    let values = rusqlite::params![scope.target, scope.agent, scope.since_ns, scope.until_ns];
    let mut rows = reader.db.prepare(&format!(
        "SELECT c.agent_id, o.policy_digest, min(o.wall_ns), max(o.wall_ns), count(*)
         FROM operations o JOIN chains c ON c.id = o.chain WHERE {within}
         GROUP BY 1, 2 ORDER BY 1, 3"
    ))?;
    let digests = rows
        .query_map(values, |row| {
            Ok(InForce {
                agent: row.get(0)?,
                digest: hex::encode(row.get::<_, Vec<u8>>(1)?),
                first_ns: row.get(2)?,
                last_ns: row.get(3)?,
                decisions: row.get(4)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let mut rows = reader.db.prepare(&format!(
        "SELECT o.policies, o.verdict, count(*) FROM operations o JOIN chains c ON c.id = o.chain
         WHERE {within} GROUP BY 1, 2"
    ))?;
    let mut decided = Decided::new();
    let found = rows.query_map(values, |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, u64>(2)?))
    })?;
    for row in found {
        let (policies, verdict, n) = row?;
        let policies = export::policies(&serde_json::from_str(&policies).unwrap_or_default());
        for policy in policies.split(' ') {
            *decided.entry((policy.to_owned(), verdict.clone())).or_default() += n;
        }
    }
    Ok((digests, decided))
}

/// The page.
pub fn page(context: &Context) -> Result<Reply, Problem> {
    let (digests, decided) = in_force(context)?;
    let digest_rows = html! {
        @for digest in &digests {
            tr {
                th scope="row" { (text::short(&digest.agent)) }
                td {
                    @if digest.digest.is_empty() { "not recorded" }
                    @else { code { (digest.digest) } }
                }
                td.time { (page::time(digest.first_ns)) }
                td.time { (page::time(digest.last_ns)) }
                td.n { (count(digest.decisions)) }
            }
        }
    };
    let decided_rows = html! {
        @for ((policy, verdict), n) in &decided {
            tr {
                th scope="row" {
                    @if policy.is_empty() { "no policy (nothing permitted it)" } @else { (text::short(policy)) }
                }
                td { (words::verdict(verdict)) }
                td.n { (count(*n)) }
            }
        }
    };
    let digest_heads = [
        ("Agent", false),
        ("Digest of the policy set", false),
        ("First decision (UTC)", false),
        ("Last decision (UTC)", false),
        ("Decisions", true),
    ];
    let decided_heads = [("Policy", false), ("Verdict", false), ("Decisions", true)];
    let body = html! {
        p.sentence {
            "As recorded with each decision. The digest is SHA-256 over the policy set: compare it with "
            code { "tidegate-agent policy" } " of the files that you approved. Changes of policy are \
            records too: "
            a href="/ask?for=any&kind=lifecycle#answers" { "ask for them" } "."
        }
        (table("Policy sets in force, by agent", "digests", &digest_heads, &digest_rows))
        (table("What each policy decided", "decided", &decided_heads, &decided_rows))
    };
    let look = Look::at("policies");
    let title = "Policies".into();
    Ok(Reply::page(look, Page { title, here: "/policies", body }))
}
