//! Statements of MySQL's dialect, made by seed over the tables of the test.
//!
//! Method: a small grammar with the constructs by which a value can reach a client. Protected columns
//! (`ssn`, `code`, `born`, and what the views show of them) stand mostly where they are shown, and seldom where
//! they decide: those statements are refused, which tells little.

use xtask::lab::random::Seeded;

/// One item of FROM: its text, the name to call it by, and its columns. Those behind `|` are protected.
struct Range {
    text: String,
    name: String,
    open: Vec<String>,
    hidden: Vec<String>,
}

pub struct Maker {
    seeded: Seeded,
    depth: u32,
    names: u32,
}

const TABLES: [(&str, &str, &str); 7] = [
    ("customers", "id name city", "ssn code born"),
    ("customers", "id name city", "ssn code born"),
    ("staff", "id name", "ssn"),
    ("orders", "id customer_id total ref", ""),
    ("clients", "id name", "number"),
    ("names", "id name city", ""),
    ("tails", "id", "tail"),
];

const LITERALS: [&str; 10] =
    ["1", "0", "'n1'", "'5'", "NULL", "2.5", "-3", "'c2'", "TRUE", "'2001-02-03'"];

const FUNCTIONS: [&str; 44] = [
    "upper(#)",
    "concat(#, '-', #)",
    "concat_ws(',', #, #)",
    "substring(#, 2, 3)",
    "left(#, 2)",
    "right(#, 3)",
    "reverse(#)",
    "length(#)",
    "char_length(#)",
    "hex(#)",
    "md5(#)",
    "coalesce(#, #)",
    "ifnull(#, #)",
    "nullif(#, #)",
    "if(#, #, #)",
    "greatest(#, #)",
    "least(#, #)",
    "replace(#, '1', '2')",
    "trim(#)",
    "locate('1', #)",
    "strcmp(#, #)",
    "elt(#, #, #)",
    "field(#, #, #)",
    "crc32(#)",
    "quote(#)",
    "isnull(#)",
    "cast(# AS char)",
    "cast(# AS signed)",
    "convert(# USING latin1)",
    "json_object('k', #)",
    "json_array(#, #)",
    "date_format(#, '%Y-%m')",
    "year(#)",
    "round(#)",
    "abs(#)",
    "mod(#, 7)",
    "to_base64(#)",
    "lpad(#, 12, '*')",
    "soundex(#)",
    "plus(#)",
    "ssn_of(#)",
    "extractvalue(#, '/a')",
    "exp(#)",
    "sha2(#, 256)",
];

const AGGREGATES: [&str; 11] = [
    "count(*)",
    "count(#)",
    "count(DISTINCT #)",
    "max(#)",
    "min(#)",
    "sum(#)",
    "avg(#)",
    "group_concat(# ORDER BY 1)",
    "group_concat(DISTINCT # SEPARATOR '/')",
    "bit_or(#)",
    "std(#)",
];

const WINDOWS: [&str; 6] = [
    "row_number() OVER (ORDER BY ^)",
    "lag(#) OVER (ORDER BY ^)",
    "first_value(#) OVER (PARTITION BY ~ ORDER BY ^)",
    "max(#) OVER ()",
    "rank() OVER (ORDER BY #)",
    "count(#) OVER (PARTITION BY ~)",
];

const OPERATORS: [&str; 18] = [
    "=", "<>", "<", ">", "<=>", "+", "-", "*", "/", "DIV", "%", "AND", "OR", "XOR", "LIKE", "|",
    "<<", "REGEXP",
];

impl Maker {
    pub fn new(seed: u64) -> Self {
        Self { seeded: Seeded::new(seed), depth: 0, names: 0 }
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.seeded.below(u64::try_from(limit).unwrap())).unwrap()
    }

    fn one_in(&mut self, limit: usize) -> bool {
        self.below(limit) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("x{}", self.names)
    }

    /// One statement.
    pub fn statement(&mut self) -> String {
        (self.depth, self.names) = (0, 0);
        match self.below(24) {
            0 => self.insert(),
            1 => self.update(),
            2 => self.delete(),
            3 => format!("EXPLAIN {}", self.query()),
            4 => format!("SET STATEMENT max_statement_time = 9 FOR {}", self.query()),
            5 => format!("EXECUTE IMMEDIATE '{}'", self.query().replace('\'', "''")),
            6 => {
                let all = [
                    "SELECT @v",
                    "CALL everybody()",
                    "SHOW WARNINGS",
                    "SHOW COLUMNS FROM customers",
                    "SELECT * FROM information_schema.processlist",
                    "CHECK TABLE customers",
                    "SELECT found_rows(), row_count()",
                    "TABLE customers",
                    "SHOW ERRORS",
                    "HANDLER customers OPEN",
                    "CHECKSUM TABLE customers",
                    "ANALYZE SELECT * FROM customers",
                    "SELECT @@warning_count",
                ];
                self.pick(&all).to_owned()
            }
            _ => self.query(),
        }
    }

    fn query(&mut self) -> String {
        self.depth += 1;
        let text = match self.below(14) {
            0 if self.depth < 3 => {
                let name = self.name();
                let (body, columns) = self.derived();
                format!(
                    "WITH {name}({}) AS ({body}) SELECT {} FROM {name}",
                    columns.join(", "),
                    columns.join(", ")
                )
            }
            1 if self.depth < 3 => {
                let kind = self.pick(&["UNION ALL", "UNION", "UNION ALL", "EXCEPT", "INTERSECT"]);
                let (one, other) = (self.plain(Some(2)), self.plain(Some(2)));
                format!("{one} {kind} {other}")
            }
            2 if self.depth < 3 => {
                let seed = self.plain(Some(2));
                format!(
                    "WITH RECURSIVE r(n, a, b) AS (SELECT 1, q.* FROM ({seed}) q UNION ALL SELECT n + 1, b, a FROM r WHERE \
                     n < 3) SELECT * FROM r"
                )
            }
            _ => self.plain(None),
        };
        self.depth -= 1;
        text
    }

    /// A query with two columns of names of its own.
    fn derived(&mut self) -> (String, [String; 2]) {
        let body = self.plain(Some(2));
        let columns = [self.name(), self.name()];
        (body, columns)
    }

    fn ranges(&mut self) -> (String, Vec<Range>) {
        let count = if self.one_in(3) { 2 } else { 1 };
        let mut ranges: Vec<Range> = Vec::new();
        let mut text = String::new();
        for at in 0..count {
            let range = self.range();
            if at > 0 {
                let how = self.below(6);
                let (here, there) = (&ranges[0].open[0], &range.open[0]);
                let on = format!("{}.{here} = {}.{there}", ranges[0].name, range.name);
                text += &match how {
                    0 => format!(" JOIN {} USING (id)", range.text),
                    1 => format!(" NATURAL JOIN {}", range.text),
                    2 => format!(" LEFT JOIN {} ON {on}", range.text),
                    3 => format!(" RIGHT JOIN {} ON {on}", range.text),
                    _ => format!(" JOIN {} ON {on}", range.text),
                };
            } else {
                text.clone_from(&range.text);
            }
            ranges.push(range);
        }
        (text, ranges)
    }

    fn range(&mut self) -> Range {
        let name = self.name();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        if self.depth < 3 && self.one_in(6) {
            self.depth += 1;
            let body = self.plain(Some(2));
            self.depth -= 1;
            // Which of its columns hold something protected is not known: any may.
            let text = format!("(SELECT q.*, 1 AS id FROM ({body}) q) {name}");
            return Range {
                text,
                name,
                open: vec!["id".to_owned()],
                hidden: vec!["p".into(), "q".into()],
            };
        }
        let at = self.below(TABLES.len());
        let (table, open, hidden) = TABLES[at];
        let text = format!("{table} {name}");
        Range { text, name, open: words(open), hidden: words(hidden) }
    }

    /// A query of one SELECT; with so many columns named `p` and `q`, where that is asked for.
    fn plain(&mut self, columns: Option<usize>) -> String {
        let (from, ranges) = self.ranges();
        let grouped = self.one_in(5);
        // Rows of equal `id` stand in no order of their own, and which is first would be chance.
        let unique = ranges.iter().all(|range| range.hidden != ["p", "q"]);
        let windowed = unique && !grouped && self.one_in(8);
        let count = columns.unwrap_or_else(|| 1 + self.below(3));
        let mut list = Vec::new();
        for at in 0..count {
            let shown = match () {
                () if columns.is_none() && !grouped && self.one_in(8) => {
                    let one = self.below(ranges.len());
                    let star = format!("{}.*", ranges[one].name);
                    list.push(if self.one_in(2) && at == 0 { "*".to_owned() } else { star });
                    continue;
                }
                () if grouped => {
                    let form = self.pick(&AGGREGATES);
                    self.fill(form, &ranges)
                }
                () if windowed => {
                    let form = self.pick(&WINDOWS);
                    self.fill(form, &ranges)
                }
                () => self.expression(&ranges, 0),
            };
            list.push(match columns {
                Some(_) => format!("{shown} AS {}", ["p", "q", "r"][at % 3]),
                None if self.one_in(3) => format!("{shown} AS {}", self.name()),
                None => shown,
            });
        }
        let distinct = if self.one_in(12) { "DISTINCT " } else { "" };
        let mut text = format!("SELECT {distinct}{} FROM {from}", list.join(", "));
        if self.one_in(2) {
            text += &format!(" WHERE {}", self.condition(&ranges));
        }
        if grouped && self.one_in(2) {
            text += &format!(" GROUP BY {}", self.open_column(&ranges));
            if self.one_in(3) {
                text += &format!(" HAVING count(*) > {}", self.below(3));
            }
        } else if !grouped && columns.is_none() && self.one_in(4) {
            text += &format!(" ORDER BY {}", self.open_column(&ranges));
        }
        text
    }

    fn column(&mut self, ranges: &[Range]) -> String {
        let one = self.below(ranges.len());
        let range = &ranges[one];
        let hidden = !range.hidden.is_empty() && self.below(5) < 3;
        let columns = if hidden { &range.hidden } else { &range.open };
        let at = self.below(columns.len());
        let name = match self.below(12) {
            0 => columns[at].to_uppercase(),
            1 => format!("`{}`", columns[at]),
            _ => columns[at].clone(),
        };
        if ranges.len() == 1 && self.one_in(2) { name } else { format!("{}.{name}", range.name) }
    }

    fn open_column(&mut self, ranges: &[Range]) -> String {
        let one = self.below(ranges.len());
        let at = self.below(ranges[one].open.len());
        format!("{}.{}", ranges[one].name, ranges[one].open[at])
    }

    /// Fills `#` with expressions, `~` with columns that are not protected, and `^` with what makes an order total.
    fn fill(&mut self, form: &str, ranges: &[Range]) -> String {
        let mut text = String::new();
        for letter in form.chars() {
            match letter {
                '#' => text += &self.expression(ranges, 2),
                '~' => text += &self.open_column(ranges),
                '^' => {
                    let ids = ranges.iter().map(|range| format!("{}.id", range.name));
                    text += &ids.collect::<Vec<_>>().join(", ");
                }
                other => text.push(other),
            }
        }
        text
    }

    fn expression(&mut self, ranges: &[Range], depth: u32) -> String {
        if depth > 3 || self.one_in(3) {
            return if self.one_in(6) {
                self.pick(&LITERALS).to_owned()
            } else {
                self.column(ranges)
            };
        }
        match self.below(9) {
            0..=3 => {
                let form = self.pick(&FUNCTIONS);
                let mut text = String::new();
                for letter in form.chars() {
                    match letter {
                        '#' => text += &self.expression(ranges, depth + 2),
                        other => text.push(other),
                    }
                }
                text
            }
            4 | 5 => {
                let (left, right) =
                    (self.expression(ranges, depth + 1), self.expression(ranges, depth + 1));
                let operator = self.pick(&OPERATORS);
                format!("({left} {operator} {right})")
            }
            6 => {
                let tested = self.expression(ranges, depth + 2);
                let (yes, no) =
                    (self.expression(ranges, depth + 2), self.expression(ranges, depth + 2));
                format!("CASE WHEN {tested} THEN {yes} ELSE {no} END")
            }
            7 if self.depth < 3 => {
                self.depth += 1;
                let (from, inner) = self.ranges();
                let shown = self.expression(&inner, 2);
                let text = format!("(SELECT max({shown}) FROM {from})");
                self.depth -= 1;
                text
            }
            _ => self.column(ranges),
        }
    }

    fn condition(&mut self, ranges: &[Range]) -> String {
        let column = if self.one_in(7) { self.column(ranges) } else { self.open_column(ranges) };
        match self.below(6) {
            0 => format!("{column} > {}", self.below(12)),
            1 => format!("{column} IN (1, 2, 'n1', 'c2')"),
            2 => format!("{column} IS NOT NULL"),
            3 => format!("{column} LIKE '%1%'"),
            4 if self.depth < 3 => {
                self.depth += 1;
                let (from, inner) = self.ranges();
                let wanted = self.open_column(&inner);
                self.depth -= 1;
                format!("{column} IN (SELECT {wanted} FROM {from})")
            }
            _ => format!("{column} BETWEEN 1 AND {}", self.below(15)),
        }
    }

    fn insert(&mut self) -> String {
        let returning = if self.one_in(3) { " RETURNING *" } else { "" };
        match self.below(4) {
            0 => format!("INSERT INTO notes (a, b) {}", self.plain(Some(2))) + returning,
            1 => {
                format!("INSERT INTO customers (id, ssn, name) VALUES (100, 'new', 'x'){returning}")
            }
            2 => format!(
                "REPLACE INTO customers (id, ssn, name) VALUES ({}, 'new', 'x')",
                self.below(25)
            ),
            _ => format!(
                "INSERT INTO customers (id, name) VALUES ({}, 'x') ON DUPLICATE KEY UPDATE name = {}",
                self.below(25),
                self.pick(&["values(name)", "'y'", "ssn", "concat(name, code)"])
            ),
        }
    }

    fn update(&mut self) -> String {
        let (column, value) = (self.pick(&["name", "ssn", "city", "code"]), self.below(5));
        let value = match value {
            0 => "ssn".to_owned(),
            1 => "'changed'".to_owned(),
            2 => "7".to_owned(),
            3 => "concat(name, id)".to_owned(),
            _ => "(SELECT max(ssn) FROM staff)".to_owned(),
        };
        let limit = self.pick(&[
            "id < 5",
            "ssn > '5'",
            "id IN (SELECT customer_id FROM orders)",
            "code > 0",
        ]);
        format!("UPDATE customers SET {column} = {value} WHERE {limit}")
    }

    fn delete(&mut self) -> String {
        let returning = self.pick(&["", " RETURNING ssn", " RETURNING id, name", " RETURNING *"]);
        let limit = self.pick(&["id < 5", "ssn > '5'", "name = 'n1'"]);
        format!("DELETE FROM customers WHERE {limit}{returning}")
    }
}
