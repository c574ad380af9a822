//! Makes queries by seed.

use std::fmt::Write as _;

/// Relations with their columns: tables, whose first one is `id`, then views.
pub const RELATIONS: [(&str, &[&str]); 8] = [
    ("customers", &["id", "name", "ssn", "card", "city"]),
    ("orders", &["id", "customer_id", "total", "status", "ref"]),
    ("public.items", &["id", "order_id", "sku", "price"]),
    ("other.notes", &["id", "body", "name"]),
    ("people", &["id", "name", "number"]),
    ("public.big", &["id", "total", "number", "who"]),
    ("sums", &["order_id", "total", "sku"]),
    ("both", &["name", "city"]),
];

/// Columns that are numbers.
const NUMBERS: [&str; 6] = ["id", "customer_id", "total", "order_id", "price", "n"];

/// A range in scope: its alias and its columns.
#[derive(Debug, Clone)]
struct Range {
    alias: String,
    columns: Vec<String>,
}

pub struct Make {
    state: u64,
    aliases: u32,
}

impl Make {
    pub const fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, aliases: 0 }
    }

    /// xorshift64*
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(random).unwrap() % bound
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("r{}", self.aliases)
    }

    pub fn query(&mut self) -> String {
        self.aliases = 0;
        let (query, _) = self.select(&[], 3, None);
        match self.below(18) {
            14..18 => self.further(&query),
            10 => self.change(),
            11 => format!("select {query_names} from ({query}) as q", query_names = "q, q.*"),
            0 => {
                let (inner, columns) = self.select(&[], 2, None);
                let range = Range { alias: "w".to_owned(), columns };
                let expression = self.expression(std::slice::from_ref(&range), 2);
                format!("with w as ({inner}) select {expression} as x, w.* from w")
            }
            1 => {
                let (inner, columns) = self.select(&[], 2, None);
                let names: Vec<_> = (0..columns.len()).map(|at| format!("k{at}")).collect();
                let names = names.join(", ");
                format!("with w({names}) as ({inner}) table w")
            }
            2 => format!("({query}) order by 1"),
            _ => query,
        }
    }

    /// Statements of further kinds: recursions, several items of WITH, grouping sets, DISTINCT ON, natural
    /// joins, rows from VALUES, MERGE and ON CONFLICT.
    fn further(&mut self, query: &str) -> String {
        let (from, ranges) = self.from(&[], 1);
        let (column, other) = (self.column(&ranges), self.column(&ranges));
        let condition = self.condition(&ranges, 1);
        match self.below(10) {
            0 => {
                let seed =
                    format!("select 1 as n, ({column})::text as s from {from} where {condition}");
                let step = "select n + 1, left(r.s, n) from r where n < 4";
                let rest = ["select s from r", "select max(n) from r group by s", "table r"]
                    [self.below(3)];
                format!("with recursive r as ({seed} union all {step}) {rest}")
            }
            1 => {
                let seed =
                    format!("select ({column})::text as s, ({other})::text as t from {from}");
                let turn = "select t, s from r";
                format!(
                    "with recursive r(s, t) as ({seed} union {turn}) select r.t from r order by r.s"
                )
            }
            2 => format!(
                "with a as ({query}), b as (select * from a) select b.*, (select count(*) from a) as n from b"
            ),
            3 => format!(
                "select {column}, grouping({column}) as g, count({other}) as n from {from} group by grouping sets (({column}), ())"
            ),
            4 => format!(
                "select {column}, {other}, max({column}) as m from {from} where {condition} group by rollup ({column}, {other})"
            ),
            5 => format!(
                "select distinct on ({column}) {other} as x from {from} where {condition} order by {column}"
            ),
            6 => "select v.a, customers.ssn from customers natural join orders as o(id), lateral (values (o.ref, customers.card)) as v(a, b) where v.b = o.status"
                .to_owned(),
            7 => format!(
                "merge into orders as m using (select ({column})::text as a, {} as k from {from}) as s on m.id = s.k when matched and s.a = m.status then update set ref = s.a when not matched then insert (id, ref) values (s.k, s.a)",
                self.number(&ranges)
            ),
            8 => format!(
                "insert into orders as m (id, ref) select {}, ({column})::text from {from} where {condition} on conflict (id) do update set ref = excluded.ref || m.status where m.total > excluded.id returning m.ref, m.*",
                self.number(&ranges)
            ),
            _ => format!(
                "with d as (delete from items as m using {from} where {condition} returning m.sku, {column} as x) select d.x, d.sku from d order by d.sku"
            ),
        }
    }

    /// A statement that changes rows and returns some.
    fn change(&mut self) -> String {
        let (name, columns) = RELATIONS[self.below(4)];
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        let target = Range { alias: self.alias(), columns };
        let (from, mut ranges) = self.from(&[], 1);
        ranges.push(target.clone());
        let alias = &target.alias;
        let returned = match self.below(3) {
            0 => "*".to_owned(),
            1 => format!("{alias}.*"),
            _ => self.expression(&ranges, 1),
        };
        let condition = self.condition(&ranges, 1);
        let column = &target.columns[1];
        let value = match name {
            "orders" | "public.items" => self.number(&ranges),
            _ => format!("({})::text", self.expression(&ranges, 1)),
        };
        match self.below(3) {
            0 => format!(
                "delete from {name} as {alias} using {from} where {condition} returning {returned}"
            ),
            1 => format!(
                "update {name} as {alias} set {column} = {value} from {from} where {condition} returning {returned}"
            ),
            _ => {
                let value = self.one(&[], 1);
                format!(
                    "insert into other.notes as {alias} (body) ({value}) returning {alias}.*, {alias}.body || 'x'"
                )
            }
        }
    }

    /// A query, and the names of its columns. `width` asks for that many, all text.
    fn select(
        &mut self,
        outer: &[Range],
        deep: usize,
        width: Option<usize>,
    ) -> (String, Vec<String>) {
        let (from, ranges) = self.from(outer, deep);
        let mut scope = ranges.clone();
        scope.extend_from_slice(outer);
        let count = width.unwrap_or_else(|| 1 + self.below(3));
        let mut list = Vec::new();
        let mut names = Vec::new();
        let grouped = width.is_none() && self.chance(15);
        let key = self.column(&ranges);
        for at in 0..count {
            let name = format!("e{at}");
            let value = match width {
                Some(_) => format!("({})::text", self.expression(&scope, deep)),
                None if grouped && at == 0 => key.clone(),
                None if grouped => self.aggregate(&ranges),
                None => self.expression(&scope, deep),
            };
            // Without a name of its own an output has the one that the server makes up.
            if width.is_none() && deep == 3 && !grouped && self.chance(20) {
                list.push(value);
                names.push(name);
                continue;
            }
            list.push(format!("{value} as {name}"));
            names.push(name);
        }
        if !grouped && width.is_none() && self.chance(20) {
            let star = &ranges[self.below(ranges.len())];
            list.push(format!("{}.*", star.alias));
            names.extend(star.columns.iter().cloned());
        }
        let distinct = if self.chance(10) { "distinct " } else { "" };
        let mut query = format!("select {distinct}{} from {from}", list.join(", "));
        if self.chance(50) {
            write!(query, " where {}", self.condition(&scope, deep)).unwrap();
        }
        if grouped {
            write!(query, " group by {key}").unwrap();
            if self.chance(30) {
                write!(query, " having {} is not null", self.aggregate(&ranges)).unwrap();
            }
        } else if distinct.is_empty() && self.chance(15) {
            write!(query, " order by {}", self.column(&ranges)).unwrap();
        }
        if self.chance(10) {
            query.push_str(" limit 5");
        }
        if width.is_none() && deep > 1 && names.len() == count && self.chance(12) {
            let words = ["union", "union all", "intersect", "except"];
            let word = words[self.below(words.len())];
            let left = self.select(outer, deep - 1, Some(count)).0;
            let right = self.select(outer, deep - 1, Some(count)).0;
            return (format!("({left}) {word} ({right})"), names);
        }
        (query, names)
    }

    fn from(&mut self, outer: &[Range], deep: usize) -> (String, Vec<Range>) {
        let (mut text, first) = self.item(outer, &[], deep);
        let mut ranges = vec![first];
        while self.chance(35) && ranges.len() < 3 {
            let (item, range) = self.item(outer, &ranges, deep);
            let common = range
                .columns
                .iter()
                .find(|column| ranges.len() == 1 && ranges[0].columns.contains(column));
            match (self.below(5), common.cloned()) {
                (0, _) => {
                    text = format!("{text}, {item}");
                    ranges.push(range);
                }
                (1, Some(column)) => {
                    text = format!("{text} full join {item} using ({column})");
                    ranges.push(range);
                }
                (2, Some(column)) => {
                    text = format!("{text} join {item} using ({column})");
                    ranges.push(range);
                }
                (kind, _) => {
                    ranges.push(range);
                    let condition = self.condition(&ranges, 0);
                    let word = if kind == 3 { "left join" } else { "join" };
                    text = format!("{text} {word} {item} on {condition}");
                }
            }
        }
        (text, ranges)
    }

    fn item(&mut self, outer: &[Range], beside: &[Range], deep: usize) -> (String, Range) {
        let alias = self.alias();
        match self.below(12) {
            0 | 1 if deep > 0 => {
                let (query, columns) = self.select(outer, deep - 1, None);
                (format!("({query}) as {alias}"), Range { alias, columns })
            }
            2 if deep > 0 && !beside.is_empty() => {
                let mut scope = beside.to_vec();
                scope.extend_from_slice(outer);
                let (query, columns) = self.select(&scope, deep - 1, None);
                (format!("lateral ({query}) as {alias}"), Range { alias, columns })
            }
            3 => {
                let columns = vec!["n".to_owned(), "t".to_owned()];
                (format!("(values (1, 'a'), (2, 'b')) as {alias}(n, t)"), Range { alias, columns })
            }
            4 => {
                let columns = vec!["n".to_owned()];
                (format!("generate_series(1, 3) as {alias}(n)"), Range { alias, columns })
            }
            5 => {
                let columns = vec!["t".to_owned()];
                (format!("public.numbers() as {alias}(t)"), Range { alias, columns })
            }
            _ => {
                let (name, columns) = RELATIONS[self.below(RELATIONS.len())];
                let mut columns: Vec<_> = columns.iter().map(|&name| name.to_owned()).collect();
                if self.chance(15) {
                    "z".clone_into(&mut columns[0]);
                    return (format!("{name} as {alias}(z)"), Range { alias, columns });
                }
                (format!("{name} as {alias}"), Range { alias, columns })
            }
        }
    }

    fn column(&mut self, ranges: &[Range]) -> String {
        let range = &ranges[self.below(ranges.len())];
        let column = &range.columns[self.below(range.columns.len())];
        // Unqualified names are often ambiguous, and then refused.
        if self.chance(12) { column.clone() } else { format!("{}.{column}", range.alias) }
    }

    fn number(&mut self, ranges: &[Range]) -> String {
        let all: Vec<_> = ranges
            .iter()
            .flat_map(|range| range.columns.iter().map(move |column| (range, column)))
            .filter(|(_, column)| NUMBERS.contains(&column.as_str()))
            .map(|(range, column)| format!("{}.{column}", range.alias))
            .collect();
        if all.is_empty() { "7".to_owned() } else { all[self.below(all.len())].clone() }
    }

    fn aggregate(&mut self, ranges: &[Range]) -> String {
        let column = self.column(ranges);
        match self.below(8) {
            5 => format!("mode() within group (order by {column})"),
            6 => format!("percentile_disc(0.5) within group (order by {column} desc)"),
            7 => {
                format!("jsonb_object_agg(coalesce({column}::text, 'x'), {})", self.column(ranges))
            }
            0 => "count(*)".to_owned(),
            1 => format!("max({column})"),
            2 => format!("string_agg({column}::text, ',' order by {})", self.column(ranges)),
            3 => format!("count(distinct {column})"),
            _ => format!("array_agg({column}) filter (where {} is not null)", self.column(ranges)),
        }
    }

    fn expression(&mut self, ranges: &[Range], deep: usize) -> String {
        let column = self.column(ranges);
        let other = self.column(ranges);
        match self.below(28) {
            18 => format!("({column} is distinct from {column})"),
            19 => format!("(row({column}, {other}) = row({column}, {other}))"),
            20 => format!("jsonb_build_object('a', {column}, 'b', {other}) -> 'a'"),
            21 => format!("nullif({column}::text, {other}::text)"),
            22 => format!(
                "sum(length({column}::text)) over (partition by {other} rows between 1 preceding and current row)"
            ),
            23 => format!("greatest({column}::text, {other}::text)"),
            24 => format!("format('%s-%s', {column}, {other})"),
            25 => format!("(xpath('/a/text()', xmlelement(name a, {column})))[1]::text"),
            26 => format!("(array[{column}::text, {other}::text])[1:1]"),
            27 => format!("({column}::text in ('a', {other}::text) or {other} is null)"),
            0 => format!("upper({column}::text)"),
            1 => format!("{column}::text || {other}::text"),
            2 => format!("coalesce({column}::text, {other}::text, 'x')"),
            3 => format!(
                "case when {} then {column}::text else {other}::text end",
                self.condition(ranges, 0)
            ),
            4 => format!("{} + {}", self.number(ranges), self.number(ranges)),
            5 => format!("public.twice({})", self.number(ranges)),
            6 => format!("row_number() over (partition by {column} order by {other})"),
            7 => format!("lag({column}) over (order by {other})"),
            8 => format!("to_jsonb({})", ranges[self.below(ranges.len())].alias),
            9 => ranges[self.below(ranges.len())].alias.clone(),
            10 => format!("({}).{}", ranges[0].alias, ranges[0].columns[0]),
            11 if deep > 0 => format!("({} limit 1)", self.one(ranges, deep)),
            12 if deep > 0 => format!("array({})", self.one(ranges, deep)),
            13 if deep > 0 => format!("exists ({})", self.one(ranges, deep)),
            14 => format!("array[{column}::text, {other}::text]"),
            15 => "'constant'".to_owned(),
            _ => column,
        }
    }

    /// A query of one text column, without a `LIMIT` of its own.
    fn one(&mut self, outer: &[Range], deep: usize) -> String {
        let (from, ranges) = self.from(outer, deep - 1);
        let mut scope = ranges;
        scope.extend_from_slice(outer);
        let value = self.expression(&scope, deep - 1);
        let condition = self.condition(&scope, 0);
        format!("select ({value})::text from {from} where {condition}")
    }

    fn condition(&mut self, ranges: &[Range], deep: usize) -> String {
        let column = self.column(ranges);
        match self.below(14) {
            10 => format!("({column}::text, {}::text) > ('a', 'b')", self.column(ranges)),
            11 => format!("{column} is not distinct from {column}"),
            12 => format!(
                "case when {column}::text < 'm' then {} = 1 else true end",
                self.number(ranges)
            ),
            13 => format!("{column}::text = any (array['a', {}::text])", self.column(ranges)),
            0 => format!("{column} is not null"),
            1 => format!("{column}::text like 'a%'"),
            2 => format!("{} between 1 and 5", self.number(ranges)),
            3 => format!("{column}::text in ('a', 'b')"),
            4 => format!("{} = {}", self.number(ranges), self.number(ranges)),
            5 => format!("({} or not {})", self.condition(ranges, 0), self.condition(ranges, 0)),
            6 if deep > 0 => format!("{column}::text in ({})", self.one(ranges, deep)),
            7 if deep > 0 => format!("exists ({})", self.one(ranges, deep)),
            8 => format!("{column}::text = {}::text", self.column(ranges)),
            _ => format!("length({column}::text) > 2"),
        }
    }
}
