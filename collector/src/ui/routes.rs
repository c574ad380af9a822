//! Which URL is which page, for whom; and what every answer carries.
//!
//! Promises: a page of evidence is made only for a role that may have it; a form counts only with the
//! session's token in it; the look is kept before its answer is sent; each answer, also an error,
//! carries the security headers. No answer may be cached.
//!
//! Limits: a form has at most [`FORM_BYTES_MAX`]; an URL at most what HTTP allows (64 KiB).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Form, FromRequest as _, Query, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use sha2::{Digest as _, Sha256};

use super::looks::{self, Look};
use super::page::{self, Page};
use super::roles::Role;
use super::store::User;
use super::{Ui, ask, enter, exam, integrity, people, policies, review, session, terminal};
use crate::clock;

/// Longest form.
const FORM_BYTES_MAX: usize = 64 * 1024;
/// A form has this long to come.
const FORM_SECONDS_MAX: Duration = Duration::from_secs(30);

/// Names and values of a query or a form; of a name that comes twice the last counts.
pub type Fields = BTreeMap<String, String>;

/// What a page is made from.
pub struct Context {
    /// Shared.
    pub ui: Arc<Ui>,
    /// Who looks.
    pub user: User,
    /// What a form of this session must carry.
    pub csrf: String,
    /// The time of the request.
    pub now_ns: u64,
    /// Its URL.
    pub uri: Uri,
    /// Its query.
    pub query: Fields,
    /// Its form, where it is a POST.
    pub form: Fields,
}

impl Context {
    /// The time of the request, as SQLite has it.
    pub fn now(&self) -> i64 {
        clock::signed_ns(self.now_ns)
    }

    /// A field of the query without surrounding blanks; `None` where it is empty.
    pub fn field(&self, name: &str) -> Option<String> {
        filled(&self.query, name)
    }

    /// A segment of the path, counted from 0.
    pub fn segment(&self, at: usize) -> &str {
        self.uri.path().split('/').nth(at + 1).unwrap_or_default()
    }
}

/// A field without surrounding blanks; `None` where it is empty.
pub fn filled(fields: &Fields, name: &str) -> Option<String> {
    fields.get(name).map(|text| text.trim()).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// What is sent.
pub enum Content {
    /// A page.
    Page(Page),
    /// A file to keep.
    File {
        /// Its name.
        name: String,
        /// Media type.
        mime: &'static str,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Another URL.
    See(String),
}

/// An answer, and the look that it is.
pub struct Reply {
    /// Is kept before the content is sent.
    pub look: Look,
    /// The content.
    pub content: Content,
}

impl Reply {
    /// A page.
    pub fn page(look: Look, page: Page) -> Self {
        Self { look, content: Content::Page(page) }
    }

    /// A file to keep.
    pub fn file(look: Look, name: impl Into<String>, mime: &'static str, bytes: Vec<u8>) -> Self {
        Self { look, content: Content::File { name: name.into(), mime, bytes } }
    }

    /// Another URL; `page` says what the look was at.
    pub fn see(page: &'static str, url: impl Into<String>) -> Self {
        Self { look: Look::at(page), content: Content::See(url.into()) }
    }
}

/// Why there is no answer.
pub enum Problem {
    /// The request is not understood.
    Bad(String),
    /// There is no such thing, or not for this person.
    Missing(String),
    /// Not for this role.
    Forbidden(String),
    /// Our fault.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Makes a page.
type Make = fn(&Context) -> Result<Reply, Problem>;

const READERS: &[Role] = &[Role::Reviewer, Role::Examiner];
const REVIEWERS: &[Role] = &[Role::Reviewer];
const ADMINS: &[Role] = &[Role::Admin];
const ALL: &[Role] = &Role::ALL;

/// All routes.
pub fn router(ui: &Arc<Ui>) -> Router {
    let page = |make: Make, roles: &'static [Role]| -> MethodRouter {
        let ui = Arc::clone(ui);
        get(move |request: Request| run(ui, request, make, roles))
    };
    let form = |make: Make, roles: &'static [Role]| -> MethodRouter {
        let ui = Arc::clone(ui);
        post(move |request: Request| run(ui, request, make, roles))
    };
    let tls = ui.tls;
    let (door, open) = (Arc::clone(ui), Arc::clone(ui));
    Router::new()
        .route("/", page(page::home, ALL))
        .route("/ask", page(ask::page, READERS))
        .route("/ask.csv", page(ask::csv, READERS))
        .route("/ask.json", page(ask::json, READERS))
        .route("/session/{id}", page(session::page, READERS))
        .route("/session/{id}/terminal/{index}", page(terminal::cast, READERS))
        .route("/session/{id}/export.csv", page(session::csv, READERS))
        .route("/session/{id}/export.json", page(session::json, READERS))
        .route("/review", page(review::queue, READERS))
        .route("/review/{index}", page(review::one, READERS).merge(form(review::sign, REVIEWERS)))
        .route("/integrity", page(integrity::page, ALL))
        .route("/integrity/verify", form(integrity::verify, ALL))
        .route("/policies", page(policies::page, ALL))
        .route("/exam", page(exam::choose, READERS))
        .route("/exam/pack", page(exam::pack, READERS))
        .route("/exam/pack.json", page(exam::json, READERS))
        .route("/exam/csv/{id}", page(exam::csv, READERS))
        .route("/people", page(people::page, ADMINS))
        .route("/people/end", form(people::end, ADMINS))
        .route("/leave", form(enter::leave, ALL))
        .route(
            "/enter",
            get(move |request: Request| enter::door(open, request))
                .post(move |request: Request| enter::enter(door, request)),
        )
        .route("/style.css", get(page::style))
        .route("/icon.svg", get(page::icon))
        .fallback(async || page::problem(StatusCode::NOT_FOUND, "There is no such page.", None))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(map_response(move |response: Response| headers(response, tls)))
}

/// One request, from the cookie to the answer.
async fn run(ui: Arc<Ui>, request: Request, make: Make, roles: &'static [Role]) -> Response {
    let now_ns = clock::now_ns();
    let uri = request.uri().clone();
    let is_form = *request.method() == Method::POST;
    let same_site = is_same_site(request.headers());
    let Some(cookie) = cookie(request.headers(), ui.tls) else {
        return page::problem(StatusCode::UNAUTHORIZED, enter::NEEDS_LINK, Some(&uri));
    };
    let Ok(Query(query)) = Query::<Fields>::try_from_uri(&uri) else {
        return page::problem(StatusCode::BAD_REQUEST, "The URL's query cannot be read.", None);
    };
    let form = if is_form { read_form(request).await } else { Some(Fields::new()) };
    let Some(form) = form else {
        return page::problem(StatusCode::BAD_REQUEST, "The form cannot be read.", None);
    };
    let Ok(place) = Arc::clone(&ui.work).acquire_owned().await else {
        return page::problem(StatusCode::SERVICE_UNAVAILABLE, "The collector stops.", None);
    };
    let work = tokio::task::spawn_blocking(move || {
        let _place = place;
        let user = match ui.store.user(&cookie, now_ns) {
            Ok(Some(user)) => user,
            Ok(None) => {
                return page::problem(StatusCode::UNAUTHORIZED, enter::NEEDS_LINK, Some(&uri));
            }
            Err(error) => return failed(&error),
        };
        let csrf = form_token(&cookie);
        if is_form && !(same_site && form.get("csrf").is_some_and(|sent| equal(sent, &csrf))) {
            let why = "This form is not from this session; open the page again.";
            return page::problem(StatusCode::FORBIDDEN, why, None);
        }
        let context = Context { ui, user, csrf, now_ns, uri, query, form };
        answer(&context, make, roles)
    });
    work.await.unwrap_or_else(|_| {
        let why = "The page could not be made; the collector's log says more.";
        page::problem(StatusCode::INTERNAL_SERVER_ERROR, why, None)
    })
}

fn answer(context: &Context, make: Make, roles: &[Role]) -> Response {
    let result = if roles.contains(&context.user.role) {
        make(context)
    } else {
        let why = format!("This page is not for the role {}.", context.user.role.name());
        Err(Problem::Forbidden(why))
    };
    let (look, sent) = match result {
        Ok(reply) => (reply.look, Ok(reply.content)),
        Err(problem) => (Look::at("refused"), Err(problem)),
    };
    let question = context.uri.path_and_query().map_or("/", |part| part.as_str());
    let kept = looks::keep(&context.ui.state, &context.user, question, &look);
    let number = match kept {
        Ok(number) => number,
        Err(error) => return failed(&error),
    };
    match sent {
        Ok(Content::Page(shown)) => page::document(context, &shown, number).into_response(),
        Ok(Content::File { name, mime, bytes }) => file(&name, mime, bytes),
        Ok(Content::See(url)) => (StatusCode::SEE_OTHER, [(header::LOCATION, url)]).into_response(),
        Err(Problem::Bad(why)) => page::problem(StatusCode::BAD_REQUEST, &why, None),
        Err(Problem::Missing(why)) => page::problem(StatusCode::NOT_FOUND, &why, None),
        Err(Problem::Forbidden(why)) => page::problem(StatusCode::FORBIDDEN, &why, None),
        Err(Problem::Failed(error)) => failed(&error),
    }
}

fn file(name: &str, mime: &'static str, bytes: Vec<u8>) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static(mime)),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::from_str(&disposition)
                .unwrap_or_else(|_| HeaderValue::from_static("attachment")),
        ),
    ];
    (head, Body::from(bytes)).into_response()
}

/// Our fault: told in the log, in general words on the page.
fn failed(error: &anyhow::Error) -> Response {
    tracing::error!(error = format!("{error:#}"), "a review page failed");
    let why = "The collector cannot answer now; its own log says why. Nothing was shown.";
    page::problem(StatusCode::SERVICE_UNAVAILABLE, why, None)
}

/// The fields of a form; `None` where it cannot be read, or takes too long to come.
pub async fn read_form(request: Request) -> Option<Fields> {
    let read = tokio::time::timeout(FORM_SECONDS_MAX, Form::<Fields>::from_request(request, &()));
    read.await.ok()?.ok().map(|Form(fields)| fields)
}

/// A form of another site is refused before its token is looked at. Browsers of 2023 and later send
/// `Sec-Fetch-Site`; for the others there is the token.
pub fn is_same_site(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .is_none_or(|site| [&b"same-origin"[..], b"none"].contains(&site.as_bytes()))
}

/// The cookie's name: over TLS with the prefix that binds it to this host and to TLS (RFC 6265bis).
pub const fn cookie_name(tls: bool) -> &'static str {
    if tls { "__Host-tidegate" } else { "tidegate" }
}

fn cookie(headers: &HeaderMap, tls: bool) -> Option<String> {
    let wanted = cookie_name(tls);
    let values =
        headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| value.to_owned())
}

/// The token of the session's forms: from its cookie, which only its browser has.
fn form_token(cookie: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"tidegate/ui/form/v1\0");
    hash.update(cookie.as_bytes());
    hex::encode(hash.finalize())
}

/// Compares in a time that doesn't depend on where they differ.
fn equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// No script at all, styles and pictures from here only, forms to here only, in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

#[expect(clippy::unused_async, reason = "axum's map_response takes async functions only")]
async fn headers(mut response: Response, tls: bool) -> Response {
    let all = response.headers_mut();
    let mut set = |name: &'static str, value: &'static str| {
        all.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    };
    set("content-security-policy", POLICY);
    set("x-frame-options", "DENY");
    set("x-content-type-options", "nosniff");
    // Not "no-referrer": with it browsers send `Origin: null` with our own forms.
    set("referrer-policy", "same-origin");
    set("cross-origin-opener-policy", "same-origin");
    set("cross-origin-resource-policy", "same-origin");
    set("permissions-policy", "camera=(), geolocation=(), microphone=()");
    if tls {
        set("strict-transport-security", "max-age=31536000");
    }
    set("cache-control", "no-store");
    response
}
