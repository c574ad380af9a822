//! A browser without a face: one request a connection, a cookie, forms; and a collector with its night.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tidegate_collector::clock;
use tidegate_collector::config::Ui;
use tidegate_collector::index;
use tidegate_collector::query::{self, Filter};
use tidegate_collector::serve::Running;
use tidegate_collector::ui::roles::{Role, Scope};
use tidegate_collector::ui::store::{Invitation, Store};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::demo;
use crate::home::{Home, indexed, within};

pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    pub fn to(&self) -> &str {
        self.header("location")
    }

    /// The value of the field `csrf` in the first form.
    pub fn csrf(&self) -> String {
        between(&self.body, "name=\"csrf\" value=\"", "\"").to_owned()
    }
}

pub fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from} in {text}"));
    rest.split_once(to).unwrap().0
}

/// A collector that serves its pages, with the night in its log.
pub struct Site {
    pub home: Home,
    pub running: Running,
    pub at: SocketAddr,
}

impl Site {
    pub async fn start() -> Self {
        let site = Self::empty(None).await;
        demo::fill(&site.home, &site.running).await;
        site
    }

    pub async fn empty(tls: Option<bool>) -> Self {
        let mut home = Home::new();
        home.config.ui = Some(Ui { listen: "127.0.0.1:0".parse().unwrap(), tls });
        let running = home.serve().await;
        let at = running.ui.unwrap();
        Self { home, running, at }
    }

    pub fn store(&self) -> Store {
        Store::open(&self.home.config.paths().ui()).unwrap()
    }

    pub fn link(&self, name: &str, role: Role, scope: &Scope, operates: &[&str]) -> String {
        let operates: Vec<String> = operates.iter().map(|name| (*name).to_owned()).collect();
        let invitation = Invitation { name, role, scope, operates: &operates };
        self.store().invite(&invitation, clock::now_ns()).unwrap()
    }

    /// A person who has come in.
    pub async fn person(&self, name: &str, role: Role) -> Person<'_> {
        self.scoped(name, role, &Scope::default(), &[]).await
    }

    pub async fn scoped(
        &self,
        name: &str,
        role: Role,
        scope: &Scope,
        operates: &[&str],
    ) -> Person<'_> {
        let token = self.link(name, role, scope, operates);
        let answer = self.post("/enter", "", &format!("token={token}")).await;
        assert_eq!((answer.status, answer.to()), (303, "/"), "{}", answer.body);
        let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
        Person { site: self, cookie }
    }

    pub async fn get(&self, path: &str, cookie: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1"), cookie, "", "").await
    }

    pub async fn post(&self, path: &str, cookie: &str, form: &str) -> Answer {
        self.send(&format!("POST {path} HTTP/1.1"), cookie, "", form).await
    }

    pub async fn send(&self, line: &str, cookie: &str, extra: &str, form: &str) -> Answer {
        let stream = TcpStream::connect(self.at).await.unwrap();
        exchange(stream, line, cookie, extra, form).await
    }

    /// All acts of this name that are in the log: who, and what; once every act has its place there.
    pub async fn acts(&self, act: &str) -> Vec<(String, serde_json::Value)> {
        while !self.home.state().waiting_acts(0, 1).unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        indexed(&self.running).await;
        let db = index::open_for_reading(&self.home.config.paths().index()).unwrap();
        let filter = Filter { admin: true, limit: 1_000, ..Filter::default() };
        let answers = query::ask(&db, &filter).unwrap();
        let acts = answers.into_iter().filter_map(|answer| {
            let detail = answer.text.strip_prefix(act)?.strip_prefix(' ')?;
            Some((answer.who, serde_json::from_str(detail).ok()?))
        });
        acts.collect()
    }

    /// The log index of the newest operation that this question finds.
    pub async fn entry(&self, person: &Person<'_>, query: &str) -> u64 {
        let csv = person.page(&format!("/ask.csv?for=any&{query}")).await;
        csv.lines().last().unwrap().split(',').next().unwrap().parse().unwrap()
    }
}

pub async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &str,
    cookie: &str,
    extra: &str,
    form: &str,
) -> Answer {
    let head = format!(
        "{line}\r\nhost: localhost\r\nconnection: close\r\ncookie: {cookie}\r\n{extra}\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Answer { status, headers: headers.collect(), body: body.to_owned() }
}

/// Somebody with a session.
pub struct Person<'a> {
    pub site: &'a Site,
    pub cookie: String,
}

impl Person<'_> {
    pub async fn get(&self, path: &str) -> Answer {
        self.site.get(path, &self.cookie).await
    }

    /// A page that must be there.
    pub async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    /// A form as its page has it.
    pub async fn submit(&self, path: &str, page: &str, fields: &str) -> Answer {
        let csrf = self.get(page).await.csrf();
        self.site.post(path, &self.cookie, &format!("{fields}&csrf={csrf}")).await
    }
}

/// The path of a session's page.
pub fn session(id: [u8; 16]) -> String {
    format!("/session/{}", hex::encode(id))
}
