//! Coming in by a one-time link, and leaving.
//!
//! Promise: opening the link's page spends nothing, since mail scanners and previews open links;
//! the button on it does.
//!
//! Known gap: no OIDC yet; whoever has the link within its ten minutes is the account.

use std::sync::Arc;

use axum::extract::{Query, Request};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use maud::html;

use super::looks::{self, Look};
use super::routes::{
    Context, Fields, Problem, Reply, cookie_name, filled, is_same_site, read_form,
};
use super::store::LINK_SECONDS;
use super::{Ui, page};
use crate::clock;

/// Said where there is no session.
pub const NEEDS_LINK: &str = "There is no open session in this browser. An administrator of this \
    collector makes a one-time link for you with: tidegate-collector ui link";

const SPENT: &str = "This link is unknown, used or older than ten minutes. Ask for a new one.";

/// The page behind a link: a button.
pub async fn door(ui: Arc<Ui>, request: Request) -> Response {
    let query = Query::<Fields>::try_from_uri(request.uri()).map(|Query(query)| query);
    let token = query.ok().and_then(|query| filled(&query, "token"));
    let Some(token) = token else {
        return page::problem(StatusCode::BAD_REQUEST, SPENT, None);
    };
    let asked = token.clone();
    let open = tokio::task::spawn_blocking(move || ui.store.is_open(&asked, clock::now_ns())).await;
    if !matches!(open, Ok(Ok(true))) {
        return page::problem(StatusCode::FORBIDDEN, SPENT, None);
    }
    let body = html! {
        main.narrow id="main" {
            h1 { "Come in" }
            p {
                "This link works once, within " (LINK_SECONDS / 60) " minutes of its making. From here \
                on, each page that you open is recorded with your name."
            }
            form method="post" action="/enter" {
                input type="hidden" name="token" value=(token);
                button.main type="submit" autofocus { "Begin the session" }
            }
        }
    };
    Html(page::whole("Come in", &body).into_string()).into_response()
}

/// Spends the link.
pub async fn enter(ui: Arc<Ui>, request: Request) -> Response {
    let same_site = is_same_site(request.headers());
    let token = read_form(request).await.and_then(|fields| filled(&fields, "token"));
    let (Some(token), true) = (token, same_site) else {
        return page::problem(StatusCode::BAD_REQUEST, SPENT, None);
    };
    let tls = ui.tls;
    let entered = tokio::task::spawn_blocking(move || spend(&ui, &token));
    match entered.await {
        Ok(Ok(Some(cookie))) => {
            let cookie = set_cookie(tls, &cookie);
            let head = [(header::LOCATION, "/".to_owned()), (header::SET_COOKIE, cookie)];
            (StatusCode::SEE_OTHER, head).into_response()
        }
        Ok(Ok(None)) => page::problem(StatusCode::FORBIDDEN, SPENT, None),
        _ => {
            page::problem(StatusCode::SERVICE_UNAVAILABLE, "The link cannot be checked now.", None)
        }
    }
}

/// Spends the link; the cookie, once the beginning of the session is kept.
fn spend(ui: &Ui, token: &str) -> anyhow::Result<Option<String>> {
    let now_ns = clock::now_ns();
    let Some(cookie) = ui.store.enter(token, now_ns)? else { return Ok(None) };
    let Some(user) = ui.store.user(&cookie, now_ns)? else { return Ok(None) };
    looks::keep(&ui.state, &user, "/enter", &Look::at("enter"))?;
    Ok(Some(cookie))
}

fn set_cookie(tls: bool, value: &str) -> String {
    let secure = if tls { "; Secure" } else { "" };
    format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}", cookie_name(tls))
}

/// Ends the session.
pub fn leave(context: &Context) -> Result<Reply, Problem> {
    context.ui.store.end(context.user.session, context.now_ns)?;
    Ok(Reply::see("leave", "/"))
}
