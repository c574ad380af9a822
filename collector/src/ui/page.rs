//! The frame of every page: head, navigation, foot; and the pieces that pages share.
//!
//! Promises: landmarks, one `h1`, a skip link; every table has a caption and scopes; what a colour
//! says a word says too; times are UTC and say so.

use axum::http::{StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};

use super::roles::Role;
use super::routes::{Context, Problem, Reply};
use super::text;
use crate::clock::rfc3339;

const STYLE: &str = include_str!("assets/style.css");
const ICON: &str = include_str!("assets/icon.svg");

/// A page without its frame.
pub struct Page {
    /// Its title and heading.
    pub title: String,
    /// The path of its entry in the navigation.
    pub here: &'static str,
    /// What is in it, below the heading.
    pub body: Markup,
}

const NAVIGATION: [(&str, &str, &[Role]); 6] = [
    ("/ask", "Ask", &[Role::Reviewer, Role::Examiner]),
    ("/review", "Review queue", &[Role::Reviewer, Role::Examiner]),
    ("/integrity", "Integrity", &Role::ALL),
    ("/policies", "Policies", &Role::ALL),
    ("/exam", "Exam pack", &[Role::Reviewer, Role::Examiner]),
    ("/people", "People and looks", &[Role::Admin]),
];

/// The first page of a role.
#[expect(clippy::unnecessary_wraps, reason = "one signature for all pages")]
pub fn home(context: &Context) -> Result<Reply, Problem> {
    let to = if context.user.role == Role::Admin { "/people" } else { "/ask" };
    Ok(Reply::see("home", to))
}

/// The whole document.
pub fn document(context: &Context, page: &Page, look: u64) -> Html<String> {
    let user = &context.user;
    let origin = &context.ui.config.collector.origin;
    let body = html! {
        header.top {
            a.brand href="/" { "Tidegate" span { " evidence of " (text::short(origin)) } }
            nav aria-label="Pages" {
                ul {
                    @for (path, name, roles) in NAVIGATION {
                        @if roles.contains(&user.role) {
                            li {
                                a href=(path) aria-current=[(path == page.here).then_some("page")] {
                                    (name)
                                }
                            }
                        }
                    }
                }
            }
            form.person method="post" action="/leave" {
                input type="hidden" name="csrf" value=(context.csrf);
                span {
                    strong { (text::short(&user.name)) }
                    ", " (user.role.name())
                    @if !user.scope.is_everything() { " (scoped)" }
                }
                button type="submit" { "Leave" }
            }
        }
        main id="main" {
            h1 { (page.title) }
            @if !user.scope.is_everything() { (scope_note(context)) }
            (page.body)
        }
        footer.foot {
            p {
                "Made " (time(context.now())) " UTC. This look is act " (look) " of the collector's own record. "
                "Everything on this page is produced from the log " (text::short(origin)) "; what proves \
                it is the log, by "
                code { "tidegate-collector verify" } ", not this page."
            }
        }
    };
    Html(whole(&page.title, &body).into_string())
}

fn scope_note(context: &Context) -> Markup {
    let scope = &context.user.scope;
    html! {
        p.note {
            "Your scope: "
            @if let Some(target) = &scope.target { "target " (text::short(target)) "; " }
            @if let Some(agent) = &scope.agent { "agent " (text::short(agent)) "; " }
            @if let Some(since) = scope.since_ns { "from " (time(since)) " UTC; " }
            @if let Some(until) = scope.until_ns { "before " (time(until)) " UTC; " }
            "no other evidence is shown."
        }
    }
}

/// A document with its head, around any body.
pub fn whole(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Tidegate" }
                link rel="stylesheet" href="/style.css";
                link rel="icon" href="/icon.svg" type="image/svg+xml";
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (body)
            }
        }
    }
}

/// A page that says why there is none. `again`: a link to the same page, which brings the cookie where
/// the browser has come from another site (SameSite=Strict).
pub fn problem(status: StatusCode, why: &str, again: Option<&Uri>) -> Response {
    let again = again.and_then(Uri::path_and_query).map(|part| part.as_str().to_owned());
    let title = status.canonical_reason().unwrap_or("Problem");
    let body = html! {
        main id="main" {
            h1 { (title) }
            p { (why) }
            @if let Some(again) = again {
                p {
                    "Did you follow a link from elsewhere, and have a session? "
                    a href=(again) { "Open this page again" } "."
                }
            }
            p { a href="/" { "To the first page" } }
        }
    };
    (status, Html(whole(title, &body).into_string())).into_response()
}

/// The style sheet.
pub async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

/// The icon.
pub async fn icon() -> Response {
    ([(header::CONTENT_TYPE, "image/svg+xml")], ICON).into_response()
}

/// A moment in UTC for people, to the millisecond where it has any; the column or sentence says UTC.
pub fn time(ns: i64) -> Markup {
    moment(&rfc3339(ns))
}

/// The same from RFC 3339.
pub fn moment(rfc3339: &str) -> Markup {
    let shown = rfc3339.get(..23).unwrap_or(rfc3339).replace('T', " ");
    let shown = shown.strip_suffix(".000").unwrap_or(&shown);
    html! { time datetime=(rfc3339) { (shown) } }
}

/// A duration as a person says it.
pub fn duration(ns: i64) -> String {
    let micros = ns / 1_000;
    if micros < 1_000 {
        return format!("{micros} µs");
    }
    if micros < 1_000_000 {
        return format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100);
    }
    let seconds = micros / 1_000_000;
    match seconds {
        ..=119 => format!("{seconds}.{} s", micros % 1_000_000 / 100_000),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A number with thin groups of three.
pub fn count<N: std::fmt::Display + Copy>(n: N) -> String {
    let digits = n.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

/// A table that can be scrolled on its own, by the keyboard too.
pub fn table(caption: &str, id: &str, heads: &[(&str, bool)], rows: &Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-labelledby=(id) {
            table {
                caption id=(id) { (caption) }
                thead {
                    tr {
                        @for (head, number) in heads {
                            th scope="col" class=[number.then_some("n")] { (head) }
                        }
                    }
                }
                tbody { (rows) }
            }
        }
    }
}

/// A value in an URL's query.
pub fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => {
                let _done = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_counts_and_durations_are_readable() {
        assert_eq!(
            time(1_795_227_303_250_000_000).into_string(),
            "<time datetime=\"2026-11-21T02:15:03.250000Z\">2026-11-21 02:15:03.250</time>"
        );
        for (ns, expected) in [
            (900, "0 µs"),
            (412_000, "412 µs"),
            (3_461_000, "3.4 ms"),
            (1_250_000_000, "1.2 s"),
            (600_000_000_000, "10 min"),
            (7_200_000_000_000, "2 h"),
            (400_000_000_000_000, "4 days"),
        ] {
            assert_eq!(duration(ns), expected);
        }
        assert_eq!(count(1_234_567_u64), "1\u{202f}234\u{202f}567");
        assert_eq!(encode("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }
}
