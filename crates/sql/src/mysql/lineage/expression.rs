//! Expressions.

use sqlparser::ast::{
    BinaryOperator, CaseWhen, DataType, DuplicateTreatment, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident, InTarget, OrderByExpr,
    Query, UnaryOperator, WindowFrameBound, WindowSpec, WindowType,
};

use super::{Tracer, VARIABLE, relation, total};
use crate::lineage::flow::{Flow, Item, union};
use crate::mysql::function;
use crate::mysql::names::{folded, is_never_a_column};

impl Tracer<'_> {
    pub(super) fn optional(&mut self, expr: Option<&Expr>) -> Flow {
        expr.map_or_else(Flow::default, |expr| self.expression(expr))
    }

    /// What all of these are made of together.
    pub(super) fn union_of<'e>(&mut self, all: impl IntoIterator<Item = &'e Expr>) -> Flow {
        let mut flow = Flow::default();
        all.into_iter().for_each(|expr| flow.add(self.expression(expr)));
        flow
    }

    /// What an expression is made of; what it meets and what decides is noted on the way.
    pub(super) fn expression(&mut self, expr: &Expr) -> Flow {
        if !self.notes.spend(1) {
            return Flow::opaque("too long to follow");
        }
        let flow = self.further_in(|to| to.node(expr));
        flow.unwrap_or_else(|| Flow::opaque("nested too deep to follow"))
    }

    fn node(&mut self, expr: &Expr) -> Flow {
        match expr {
            Expr::Identifier(ident) => self.identifier(ident),
            Expr::CompoundIdentifier(parts) => self.compound(parts),
            Expr::Value(value) => match &value.value {
                sqlparser::ast::Value::Boolean(_) | sqlparser::ast::Value::Null => Flow::default(),
                _ => self.value(value.span),
            },
            Expr::Nested(inner) => self.expression(inner),
            Expr::Prefixed { value, .. } => self.expression(value).computed(),
            Expr::TypedString(typed) => self.value(typed.value.span),
            Expr::UnaryOp { op, expr } => {
                let flow = self.expression(expr);
                let fails = !matches!(op, UnaryOperator::Not | UnaryOperator::BangNot);
                if fails { self.combine(flow, true) } else { flow.scalar() }
            }
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } => {
                let both = self.pair(left, right);
                let mut flow = self.combine(both, false).scalar();
                flow.fails = true;
                flow
            }
            Expr::Like { expr, pattern, escape_char, .. } => {
                let mut both = self.expression(expr);
                let mut pattern = self.expression(pattern);
                pattern.add(self.optional(escape_char.as_deref()));
                let fails = !pattern.columns.is_empty() || pattern.opaque.is_some();
                both.add(pattern);
                self.combine(both, fails).scalar()
            }
            Expr::RLike { expr, pattern, .. } => {
                let both = self.pair(expr, pattern);
                self.combine(both, true).scalar()
            }
            Expr::Between { expr, low, high, .. } => {
                let all = self.union_of([&**expr, low, high]);
                self.combine(all, false).scalar()
            }
            Expr::In { expr, target, .. } => self.within_list(expr, target),
            Expr::IsFalse(expr)
            | Expr::IsNotFalse(expr)
            | Expr::IsTrue(expr)
            | Expr::IsNotTrue(expr)
            | Expr::IsNull(expr)
            | Expr::IsNotNull(expr)
            | Expr::IsUnknown(expr)
            | Expr::IsNotUnknown(expr) => self.expression(expr).scalar(),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                let both = self.pair(left, right);
                self.combine(both, false).scalar()
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            Expr::Exists { subquery, .. } => {
                self.query(subquery);
                Flow { fails: true, ..Flow::default() }
            }
            Expr::Subquery(query) => {
                let mut flow = self.scalar_query(query);
                // More than one row is an error.
                flow.fails = true;
                flow.computed()
            }
            Expr::Function(call) => self.call(call),
            other => self.special(other),
        }
    }

    /// What the grammar has words of its own for.
    fn special(&mut self, expr: &Expr) -> Flow {
        match expr {
            Expr::Cast { expr, data_type, .. } => {
                let flow = self.expression(expr);
                self.combine(flow, !is_text(data_type))
            }
            Expr::Convert { expr, data_type, styles, .. } => {
                let mut flow = self.expression(expr);
                flow.add(self.union_of(styles));
                let total = data_type.as_ref().is_none_or(is_text);
                self.combine(flow, !total)
            }
            Expr::Collate { expr, .. } => self.expression(expr).computed(),
            Expr::Extract { expr, .. } => {
                let flow = self.expression(expr);
                self.combine(flow, true)
            }
            Expr::Ceil { expr, .. } | Expr::Floor { expr, .. } => {
                let flow = self.expression(expr);
                self.combine(flow, false)
            }
            Expr::Position { expr, r#in } => {
                let both = self.pair(expr, r#in);
                self.combine(both, false)
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                let mut flow = self.expression(expr);
                flow.add(self.optional(substring_from.as_deref()));
                flow.add(self.optional(substring_for.as_deref()));
                self.combine(flow, false)
            }
            Expr::Trim { expr, trim_what, trim_characters, .. } => {
                let mut flow = self.expression(expr);
                flow.add(self.optional(trim_what.as_deref()));
                flow.add(self.union_of(trim_characters.iter().flatten()));
                self.combine(flow, false)
            }
            Expr::Interval(interval) => self.expression(&interval.value).computed(),
            Expr::Tuple(all) => self.union_of(all).computed(),
            Expr::MatchAgainst { columns, match_value, .. } => {
                let mut flow = Flow::default();
                for column in columns {
                    let parts: Vec<Ident> =
                        column.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
                    flow.add(match parts.as_slice() {
                        [one] => self.identifier(one),
                        several => self.compound(several),
                    });
                }
                flow.add(self.value(match_value.span));
                self.combine(flow, false).scalar()
            }
            Expr::MemberOf(member) => {
                let both = self.pair(&member.value, &member.array);
                self.combine(both, true).scalar()
            }
            _ => {
                let reason = "an expression of a kind that has no place here";
                self.notes.filters_are_opaque(reason);
                self.notes.values_are_opaque(reason);
                Flow::opaque(reason)
            }
        }
    }

    fn pair(&mut self, left: &Expr, right: &Expr) -> Flow {
        self.union_of([left, right])
    }

    fn identifier(&mut self, ident: &Ident) -> Flow {
        let name = ident.value.as_str();
        if ident.quote_style.is_none() {
            if let Some(system) = name.strip_prefix("@@") {
                let tells = total::tells_of_before(&folded(system));
                let reason = "it tells of the statement before";
                return if tells { Flow::opaque(reason) } else { Flow::default() };
            }
            if name.starts_with('@') {
                return Flow::opaque(VARIABLE);
            }
            if is_never_a_column(name) {
                return Flow::default();
            }
        }
        self.bare(ident)
    }

    fn compound(&mut self, parts: &[Ident]) -> Flow {
        let system = |ident: &Ident| ident.quote_style.is_none() && ident.value.starts_with("@@");
        match parts {
            [first, rest @ ..] if system(first) => {
                let last = rest.last().unwrap_or(first);
                let tells = total::tells_of_before(&folded(&last.value));
                let reason = "it tells of the statement before";
                if tells { Flow::opaque(reason) } else { Flow::default() }
            }
            [table, column] => self.of_range(None, &table.value, column),
            [schema, table, column] => self.of_range(Some(&schema.value), &table.value, column),
            _ => Flow::opaque("a column reference of an odd form"),
        }
    }

    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Flow {
        use BinaryOperator as B;
        match op {
            B::Assignment => {
                // Whatever it is made of stays in the variable.
                let flow = self.expression(right).computed();
                self.filter(&flow);
                flow
            }
            B::And | B::Or | B::Xor => {
                let flow = self.pair(left, right).scalar();
                if flow.fails {
                    self.filter(&flow);
                }
                flow
            }
            B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq | B::Spaceship => {
                let both = self.pair(left, right);
                self.combine(both, false).scalar()
            }
            // Sums may be out of range, JSON malformed, and the rest is rare.
            _ => {
                let both = self.pair(left, right);
                self.combine(both, true)
            }
        }
    }

    fn within_list(&mut self, expr: &Expr, target: &InTarget) -> Flow {
        let mut flow = self.expression(expr);
        match target {
            InTarget::List(list) => {
                flow.add(self.union_of(list));
                self.combine(flow, false).scalar()
            }
            InTarget::Subquery(query) => {
                flow.add(self.scalar_query(query));
                let mut flow = self.combine(flow, false).scalar();
                flow.fails = true;
                flow
            }
            _ => {
                let reason = "an IN of a kind that has no place here";
                self.notes.filters_are_opaque(reason);
                self.notes.values_are_opaque(reason);
                Flow::opaque(reason)
            }
        }
    }

    fn scalar_query(&mut self, query: &Query) -> Flow {
        union(self.query(query).iter().map(Item::flow))
    }

    fn case(&mut self, operand: Option<&Expr>, whens: &[CaseWhen], other: Option<&Expr>) -> Flow {
        let mut tested = self.optional(operand);
        let mut results = Flow::default();
        for when in whens {
            tested.add(self.expression(&when.condition));
            results.add(self.expression(&when.result));
        }
        results.add(self.optional(other));
        if operand.is_some() {
            self.meet_with(&tested.values, &tested);
        }
        let fails = tested.fails || results.fails;
        // What is tested isn't handed on: only which result.
        tested.values.clear();
        tested.add(results);
        if fails {
            self.filter(&tested);
        }
        tested.computed()
    }

    /// What a call is made of. What can fail filters by its arguments; what isn't known to compute
    /// from its arguments alone is opaque.
    fn call(&mut self, call: &Function) -> Flow {
        let Some(named) = relation(&call.name) else {
            self.notes.filters_are_opaque("a function of an odd name");
            return Flow::opaque("a function of an odd name");
        };
        let name = folded(&named.name);
        let skip = usize::from(named.schema.is_none() && total::takes_unit(&name));
        let mut flow = self.arguments(&call.args, skip);
        flow.add(self.arguments(&call.parameters, 0));
        let mut flow = flow.computed();
        let mut deciding = self.keys(&call.within_group);
        deciding.add(self.optional(call.filter.as_deref()));
        if let FunctionArguments::List(list) = &call.args {
            for clause in &list.clauses {
                match clause {
                    FunctionArgumentClause::OrderBy(keys) => deciding.add(self.keys(keys)),
                    FunctionArgumentClause::Separator(value) => flow.add(self.value(value.span)),
                    FunctionArgumentClause::Limit(limit) => deciding.add(self.expression(limit)),
                    FunctionArgumentClause::IgnoreOrRespectNulls(_) => {}
                    _ => flow.add(Flow::opaque("a clause that has no place here")),
                }
            }
            if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) {
                self.filter(&flow);
            }
        }
        if let Some(window) = &call.over {
            deciding.add(self.window(window));
        }
        self.filter(&deciding);
        flow.add(deciding);
        let computes = function::only_computes(&name) || total::returns_its_arguments(&name);
        let known = named.schema.is_none() && computes;
        if !known {
            flow.add(Flow::opaque(format!("{name}() may return more than its arguments")));
        }
        // How long it takes on a text of any size, or on what can't be told, tells of its other arguments.
        let bounded = !flow.varies && flow.opaque.is_none();
        let is_total = known && total::function(&name) && bounded;
        let fails = !is_total || (total::chooses(&name) && flow.fails);
        self.combine(flow, fails).varying(total::sizes(&name))
    }

    /// What arguments are made of, but for the first `skip`.
    fn arguments(&mut self, arguments: &FunctionArguments, skip: usize) -> Flow {
        match arguments {
            FunctionArguments::None => Flow::default(),
            FunctionArguments::Subquery(query) => {
                let mut flow = self.scalar_query(query);
                flow.fails = true;
                flow
            }
            FunctionArguments::List(list) => {
                let mut flow = Flow::default();
                for argument in list.args.iter().skip(skip) {
                    flow.add(match argument {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => self.expression(expr),
                        FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => Flow::default(),
                        _ => Flow::opaque("an argument of an odd form"),
                    });
                }
                flow
            }
        }
    }

    fn keys(&mut self, keys: &[OrderByExpr]) -> Flow {
        self.union_of(keys.iter().map(|key| &key.expr))
    }

    fn window(&mut self, window: &WindowType) -> Flow {
        match window {
            WindowType::NamedWindow(name) => self.named_window(name),
            WindowType::WindowSpec(spec) => self.window_spec(spec),
        }
    }

    fn named_window(&self, name: &Ident) -> Flow {
        let name = folded(&name.value);
        let level = self.levels.last().map(|level| level.windows.as_slice()).unwrap_or_default();
        let found = level.iter().find(|(own, _)| *own == name).map(|(_, flow)| flow.clone());
        found.unwrap_or_else(|| Flow::opaque("a window that is not known"))
    }

    /// What a window is made of; it decides.
    pub(super) fn window_spec(&mut self, spec: &WindowSpec) -> Flow {
        let mut flow = self.union_of(&spec.partition_by);
        flow.add(self.keys(&spec.order_by));
        if let Some(base) = &spec.window_name {
            flow.add(self.named_window(base));
        }
        if let Some(frame) = &spec.window_frame {
            for bound in [Some(&frame.start_bound), frame.end_bound.as_ref()].into_iter().flatten()
            {
                if let WindowFrameBound::Preceding(Some(expr))
                | WindowFrameBound::Following(Some(expr)) = bound
                {
                    flow.add(self.expression(expr));
                }
            }
        }
        self.filter(&flow);
        flow
    }
}

/// Whether every value can be cast to that type.
const fn is_text(to: &DataType) -> bool {
    matches!(
        to,
        DataType::Char(_) | DataType::Character(_) | DataType::Varchar(_) | DataType::Binary(_)
    )
}
