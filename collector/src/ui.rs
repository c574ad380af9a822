//! The review pages: what reviewers and examiners read, served by the collector itself.
//!
//! Promises: every page is made on the server and works without JavaScript; there is none. Texts
//! from evidence are escaped, and what could steer a reader is shown as a glyph (`text`). Each
//! look (page, question, export) is recorded before its answer is sent: no record, no answer.
//! Questions go through `query`, the same as the command line's. Without TLS the pages are
//! served on loopback only.
//!
//! The road of a request: [`server`] (TLS, limits) -> [`routes`] (who, which role, form token) ->
//! one page (`ask`, `session`, `review`, `integrity`, `policies`, `exam`, `people`) -> the look is
//! kept -> the answer.
//!
//! Limits: named in [`server`], [`store`], [`proof`] and the pages.
//! Known gaps: logins are by one-time link only, OIDC is not there yet; a look is in the log a second after
//! its answer, and whoever can write `state.db` within that second can remove it; `verify` is run over the
//! whole log for a page, which is right for one machine only.

mod ask;
mod completeness;
mod enter;
mod exam;
mod export;
mod integrity;
pub(crate) mod looks;
mod page;
mod people;
mod policies;
mod proof;
mod read;
mod review;
pub mod roles;
mod routes;
mod server;
mod session;
pub mod store;
mod terminal;
mod text;
mod words;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use self::proof::Walks;
use self::store::Store;
use crate::config::{Config, Paths};
use crate::files;
use crate::state::State;

/// Pages that are made at the same time; more wait.
const PAGES_AT_ONCE_MAX: usize = 4;

/// What all pages share.
pub(crate) struct Ui {
    config: Config,
    paths: Paths,
    state: Arc<State>,
    store: Store,
    walks: Walks,
    work: Arc<Semaphore>,
    tls: bool,
}

/// Starts the pages where the configuration has `[ui]`; returns when they listen.
pub async fn start(
    config: &Config,
    state: &Arc<State>,
    stopping: watch::Receiver<bool>,
) -> anyhow::Result<Option<(SocketAddr, JoinHandle<()>)>> {
    let Some(settings) = config.ui else { return Ok(None) };
    let paths = config.paths();
    let tls = if settings.over_tls() { Some(server::tls(&paths)?) } else { None };
    let ui = Arc::new(Ui {
        config: config.clone(),
        store: Store::open(&paths.ui())?,
        state: Arc::clone(state),
        walks: Walks::default(),
        work: Arc::new(Semaphore::new(PAGES_AT_ONCE_MAX)),
        tls: tls.is_some(),
        paths: paths.clone(),
    });
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {} for [ui]", settings.listen))?;
    let address = listener.local_addr()?;
    files::replace(&paths.ui_address(), address.to_string().as_bytes(), files::PUBLIC)?;
    let task = tokio::spawn(server::serve(listener, tls, routes::router(&ui), stopping));
    Ok(Some((address, task)))
}

/// The URL of the pages: where they really listen while the collector serves, else as configured.
pub fn base_url(config: &Config) -> anyhow::Result<String> {
    let settings = config.ui.context(
        "the review pages are off: put [ui] with listen = \"127.0.0.1:7480\" into collector.toml, \
         and start the collector again",
    )?;
    let listens = match files::read(&config.paths().ui_address()) {
        Ok(text) => text.trim().parse::<SocketAddr>().context("ui.addr")?,
        Err(_) => settings.listen,
    };
    anyhow::ensure!(listens.port() != 0, "ui.listen has port 0, so the collector must be serving");
    let host = match (listens.ip().is_loopback(), settings.over_tls()) {
        (true, _) => listens.to_string(),
        (false, _) => format!("{}:{}", bracketed(&config.uplink.name), listens.port()),
    };
    Ok(format!("{}://{host}", if settings.over_tls() { "https" } else { "http" }))
}

fn bracketed(name: &str) -> String {
    if name.contains(':') { format!("[{name}]") } else { name.to_owned() }
}
