//! People and looks: who has access, who is in, who looked at what. For the role `admin`.
//!
//! Promise: shows questions, never answers: an admin reads no evidence here.

use maud::{Markup, html};

use super::looks::{self, Kept, Look};
use super::page::{self, Page, count, table};
use super::routes::{Context, Problem, Reply, filled};
use super::text;

/// Looks on the page.
const LOOKS_MAX: usize = 200;

/// The page.
pub fn page(context: &Context) -> Result<Reply, Problem> {
    let store = &context.ui.store;
    let accounts = store.accounts()?;
    let sessions = store.sessions(context.now_ns)?;
    let mut looks = looks::looks(&context.ui, None, None)?;
    let total = looks.len();
    looks.truncate(LOOKS_MAX);
    let account_rows = html! {
        @for (name, role, made, used) in &accounts {
            tr {
                th scope="row" { (text::short(name)) } td { (role) }
                td.n { (made) } td.n { (used) }
            }
        }
    };
    let session_rows = html! {
        @for session in &sessions {
            tr {
                th scope="row" { (text::short(&session.name)) }
                td { (text::short(&session.role)) }
                td { @if session.scope == "{}" { "everything" } @else { code { (text::short(&session.scope)) } } }
                td.time { (page::time(session.begun_ns)) }
                td.time { (page::time(session.seen_ns)) }
                td {
                    form method="post" action="/people/end" {
                        input type="hidden" name="csrf" value=(context.csrf);
                        input type="hidden" name="session" value=(session.id);
                        button type="submit" { "End session " (session.id) }
                    }
                }
            }
        }
    };
    let account_heads =
        [("Name", false), ("Role", false), ("Links made", true), ("Links used", true)];
    let session_heads = [
        ("Name", false),
        ("Role", false),
        ("Scope", false),
        ("Begun (UTC)", false),
        ("Last request (UTC)", false),
        ("End", false),
    ];
    let body = html! {
        p.sentence {
            "A one-time link is made on the collector's machine: "
            code { "tidegate-collector ui link --config F --role reviewer --name ann" }
        }
        (table("Accounts", "accounts", &account_heads, &account_rows))
        (table("Sessions that are open", "sessions", &session_heads, &session_rows))
        @if total > LOOKS_MAX { p.note { "The newest " (LOOKS_MAX) " of " (count(total)) " looks; ask for the kind administration to see more." } }
        (looks_table(&looks))
    };
    let look = Look::at("people");
    let title = "People and looks".into();
    Ok(Reply::page(look, Page { title, here: "/people", body }))
}

fn looks_table(looks: &[Kept<Look>]) -> Markup {
    let heads = [
        ("Entry", true),
        ("Time (UTC)", false),
        ("Who", false),
        ("Role", false),
        ("Page", false),
        ("Question", false),
        ("Answers", true),
        ("Log entries", false),
    ];
    let rows = html! {
        @for look in looks {
            tr {
                td.n { @if let Some(index) = look.index { (index) } @else { "soon" } }
                td.time { (page::time(look.at_ns)) }
                td { (text::short(&look.who)) } td { (text::short(&look.what.role)) }
                td { (text::short(&look.what.page)) }
                td { code { (text::short(&look.what.question)) } }
                td.n { (count(look.what.answers)) }
                td { @if let Some((first, last)) = look.what.range { (first) " to " (last) } }
            }
        }
    };
    table("Who looked at what, the newest first", "looks", &heads, &rows)
}

/// Ends a session.
pub fn end(context: &Context) -> Result<Reply, Problem> {
    let session = filled(&context.form, "session").and_then(|text| text.parse().ok());
    let session = session.ok_or_else(|| Problem::Bad("Which session?".into()))?;
    if !context.ui.store.end(session, context.now_ns)? {
        return Err(Problem::Missing("That session has ended already.".into()));
    }
    Ok(Reply::see("people, a session ended", "/people"))
}
