//! A laboratory with protected columns, the values in them, and the search for these values.

use std::fs;
use std::path::Path;

use xtask::lab::{AgentOptions, Answer, Lab, Options, Who, policies, random};

/// Rows of the protected table; each has [`COLUMNS`] protected values.
pub const ROWS: usize = 200;
/// Protected columns.
pub const COLUMNS: usize = 5;

/// What is protected, one column for each mask.
pub const PROTECT: &str = r#"
[[protect]]
target = "lab-db"
columns = ["public.customers.ssn", "parted.ssn"]
class = "ssn"
mask = "redact"
[[protect]]
target = "lab-db"
columns = ["customers.card"]
class = "card"
mask = "partial"
[[protect]]
target = "lab-db"
columns = ["customers.email"]
class = "email"
mask = "hash"
[[protect]]
target = "lab-db"
columns = ["customers.iban"]
class = "iban"
mask = "tokenise"
[[protect]]
target = "lab-db"
columns = ["customers.account"]
class = "account"
mask = "null"
"#;

/// The agent's own account at the server.
pub const CATALOGUE: &str = "[targets.catalogue]\nuser = \"tidegate\"\nrefresh_seconds = 5\n";

/// Of all roles that a laboratory adds; where logins are trusted, nobody asks for it.
const CATALOGUE_PASSWORD: &str = "known to the agent alone";

const TABLES: &str = "CREATE TABLE customers (id int PRIMARY KEY, name text, ssn text UNIQUE, card text, \
    email varchar(60), iban text, account bigint); \
    CREATE TABLE orders (id int PRIMARY KEY, customer int, words text, \
    loud text GENERATED ALWAYS AS (upper(words)) STORED); \
    INSERT INTO orders SELECT n, n, 'order ' || n FROM generate_series(1, 200) n; \
    CREATE TABLE honey (id int, words text); INSERT INTO honey VALUES (1, 'sweet'); \
    GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC";

const BEHIND: &str = "CREATE VIEW people AS SELECT id, name, ssn AS number FROM customers; \
    CREATE VIEW named AS SELECT id, name FROM customers; \
    CREATE FUNCTION everybody() RETURNS SETOF customers LANGUAGE sql AS 'SELECT * FROM customers'; \
    CREATE TABLE parted (id int, ssn text) PARTITION BY RANGE (id); \
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000); \
    INSERT INTO parted SELECT id, ssn FROM customers; \
    GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC";

/// The values of one run.
pub struct Values {
    /// Those in the table, row by row.
    pub stored: Vec<[String; COLUMNS]>,
    /// Those that only clients' statements hold.
    pub typed: Vec<String>,
}

impl Values {
    /// Others in each run.
    pub fn make() -> Self {
        let mut seeded = random::Seeded::new(random::u64().unwrap());
        let mut digits = |count: usize| -> String {
            (0..count).map(|_| char::from(b'0' + u8::try_from(seeded.below(10)).unwrap())).collect()
        };
        let stored = (0..ROWS).map(|row| {
            [
                // The row's own number makes them different from each other.
                format!("{:03}-{}-{}", 100 + row, digits(2), digits(4)),
                format!("4{:03}{}", row, digits(12)),
                format!("canary{row}x{}@secret.example", digits(8)),
                format!("DE{:03}{}", row, digits(17)),
                format!("7{:03}{}", row, digits(12)),
            ]
        });
        let stored = stored.collect();
        let typed = (0..50).map(|row| format!("{:03}-{}-{}", 900 + row, digits(2), digits(4)));
        Self { stored, typed: typed.collect() }
    }

    /// All of the table's.
    pub fn all_stored(&self) -> impl Iterator<Item = &str> {
        self.stored.iter().flatten().map(String::as_str)
    }

    /// The statement that fills the table.
    pub fn insert(&self) -> String {
        let row = |(id, [ssn, card, email, iban, account]): (usize, &[String; COLUMNS])| {
            format!("({id}, 'name {id}', '{ssn}', '{card}', '{email}', '{iban}', {account})")
        };
        let rows: Vec<String> = self.stored.iter().enumerate().map(row).collect();
        format!("INSERT INTO customers VALUES {}", rows.join(", "))
    }
}

/// A laboratory whose table holds `Values`.
pub fn lab(toml: &str, collector_toml: &str) -> (Lab, Values) {
    let agent = AgentOptions { toml: toml.to_owned(), ..AgentOptions::default() };
    let collector_toml = collector_toml.to_owned();
    lab_with(Options { agent, collector_toml, ..Options::default() })
}

/// The same with other options; the policy is always [`policies::MASKED`].
pub fn lab_with(mut options: Options) -> (Lab, Values) {
    policies::MASKED.clone_into(&mut options.agent.policy);
    let mut lab = Lab::prepare(options).unwrap();
    for role in ["auditor", "analyst", "metered", "bounded", "tidegate"] {
        let sql = format!("CREATE ROLE {role} LOGIN PASSWORD '{CATALOGUE_PASSWORD}'");
        lab.postgres.admin(&sql).unwrap();
    }
    let values = Values::make();
    lab.postgres.app(TABLES).unwrap();
    // By a file: the statement is longer than a command line may be.
    let file = lab.path("customers.sql");
    fs::write(&file, values.insert()).unwrap();
    lab.postgres.app_file(&file).unwrap();
    lab.postgres.app(BEHIND).unwrap();
    fs::create_dir_all(lab.path("agent")).unwrap();
    fs::write(lab.path("agent/catalogue.password"), format!("{CATALOGUE_PASSWORD}\n")).unwrap();
    lab.start_collector().unwrap();
    lab.start_agent().unwrap();
    (lab, values)
}

/// The connection string of a database user.
pub fn dsn(lab: &Lab, user: &str) -> String {
    lab.dsn().replace("user=app", &format!("user={user}"))
}

/// `psql` as a database user: bare rows, errors with SQLSTATE.
pub fn sql(lab: &Lab, user: &str, statements: &[&str]) -> Answer {
    let commands = statements.iter().flat_map(|statement| ["-c", statement]);
    let args = ["-Atq", "-v", "VERBOSITY=verbose"].into_iter().chain(commands);
    lab.psql_at(Who::Service, &dsn(lab, user), &args.collect::<Vec<_>>(), "").unwrap()
}

/// Finds values in bytes, in one pass.
pub struct Search {
    /// By their first eight bytes.
    by_head: std::collections::HashMap<[u8; 8], Vec<Vec<u8>>>,
    /// Which pairs of bytes a value may begin with.
    pairs: Vec<bool>,
}

impl Search {
    /// For these values, as text; those that are numbers also as eight bytes, highest first and last.
    pub fn new<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut search =
            Self { by_head: std::collections::HashMap::new(), pairs: vec![false; 1 << 16] };
        for value in values {
            search.add(value.as_bytes());
            if value.len() == 16 && value.starts_with('7') {
                let number: i64 = value.parse().unwrap();
                search.add(&number.to_be_bytes());
                search.add(&number.to_le_bytes());
            }
        }
        search
    }

    fn add(&mut self, value: &[u8]) {
        let head: [u8; 8] = value[..8].try_into().unwrap();
        self.pairs[usize::from(u16::from_be_bytes([head[0], head[1]]))] = true;
        self.by_head.entry(head).or_default().push(value.to_vec());
    }

    /// How many of the values are in `bytes`.
    pub fn count(&self, bytes: &[u8]) -> usize {
        let found = self.find(bytes).map(|(_, value)| value);
        found.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Fails where one of them is in `bytes`; says what stands around it.
    #[track_caller]
    pub fn finds_none(&self, what: &str, bytes: &[u8]) {
        let around = self.find(bytes).next().map(|(at, _)| {
            let around = &bytes[at.saturating_sub(300)..(at + 100).min(bytes.len())];
            String::from_utf8_lossy(around).into_owned()
        });
        assert_eq!(around, None, "{what} holds {} protected values", self.count(bytes));
    }

    fn find<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (usize, &'a [u8])> {
        let heads = bytes
            .windows(8)
            .enumerate()
            .filter(|(_, head)| self.pairs[usize::from(u16::from_be_bytes([head[0], head[1]]))]);
        heads.flat_map(move |(at, head)| {
            let values = self.by_head.get(head).map_or(&[][..], Vec::as_slice);
            let here = values.iter().filter(move |value| bytes[at..].starts_with(value));
            here.map(move |value| (at, value.as_slice()))
        })
    }
}

/// All files below a directory, one behind the other.
pub fn bytes_below(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.is_file() {
                all.extend(fs::read(&path).unwrap());
            }
        }
    }
    all
}
