//! Expressions.

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;
use tidegate_event::ValueAt;

use super::flow::{Flow, Item, union};
use super::{Tracer, total};
use crate::collect::{names, string};
use crate::function::is_harmless_operator;

impl Tracer<'_> {
    pub(super) fn optional(&mut self, node: Option<&p::Node>) -> Flow {
        node.map_or_else(Flow::default, |node| self.expression(node))
    }

    /// What all of these are made of together.
    pub(super) fn union_of(&mut self, nodes: &[p::Node]) -> Flow {
        union(nodes.iter().map(|node| self.expression(node)))
    }

    /// What an expression is made of; what it meets and what decides is noted on the way.
    pub(super) fn expression(&mut self, node: &p::Node) -> Flow {
        let Some(node) = &node.node else {
            return Flow::default();
        };
        if !self.spend(1) {
            return Flow::opaque("too long to follow");
        }
        let flow = self.further_in(|to| to.node(node));
        flow.unwrap_or_else(|| Flow::opaque("nested too deep to follow"))
    }

    fn node(&mut self, node: &N) -> Flow {
        match node {
            N::ColumnRef(reference) => self.column(reference),
            // A function's own parameters: the arguments are in what it is made of.
            N::ParamRef(_) if self.nested => Flow::default(),
            N::ParamRef(parameter) => parameter_value(parameter.number),
            N::AConst(constant) => match &constant.val {
                None | Some(p::a_const::Val::Boolval(_)) => Flow::default(),
                Some(_) => self.literal(constant.location),
            },
            N::AExpr(operation) => self.operation(operation),
            N::BoolExpr(all) => self.connected(all),
            N::SubLink(link) => self.sublink(link),
            N::CaseExpr(case) => self.case(case),
            N::CoalesceExpr(coalesce) => {
                let varies = self.may_vary(coalesce.args.iter());
                let flow = self.union_of(&coalesce.args);
                self.conditional(flow).varying(varies)
            }
            N::FuncCall(call) => self.call(call),
            N::TypeCast(cast) => self.cast(cast),
            N::AIndirection(indirection) => self.indirection(indirection),
            N::MinMaxExpr(all) => {
                let flow = self.union_of(&all.args);
                // Rows of different lengths can't be compared.
                let fails = flow.varies;
                self.combine(flow, fails)
            }
            N::List(list) => self.union_of(&list.items).computed(),
            N::RowExpr(row) => self.union_of(&row.args).computed(),
            N::AArrayExpr(array) => self.union_of(&array.elements).computed(),
            N::NullTest(test) => self.optional(test.arg.as_deref()).scalar(),
            N::BooleanTest(test) => self.optional(test.arg.as_deref()).scalar(),
            N::CollateClause(clause) => self.optional(clause.arg.as_deref()).computed(),
            N::NamedArgExpr(named) => self.optional(named.arg.as_deref()),
            N::ResTarget(target) => self.optional(target.val.as_deref()).computed(),
            N::SortBy(sort) => self.optional(sort.node.as_deref()),
            N::GroupingFunc(grouping) => self.union_of(&grouping.args).computed(),
            N::AIndices(indices) => {
                let mut flow = self.optional(indices.lidx.as_deref());
                flow.add(self.optional(indices.uidx.as_deref()));
                flow
            }
            N::SqlvalueFunction(_)
            | N::SetToDefault(_)
            | N::MergeSupportFunc(_)
            | N::CurrentOfExpr(_)
            | N::AStar(_)
            | N::String(_) => Flow::default(),
            N::MultiAssignRef(many) => self.optional(many.source.as_deref()).computed(),
            other => self.xml_or_json(other),
        }
    }

    fn operation(&mut self, operation: &p::AExpr) -> Flow {
        use p::AExprKind as K;
        let left = self.optional(operation.lexpr.as_deref());
        let right = self.optional(operation.rexpr.as_deref());
        let kind = K::try_from(operation.kind);
        let real = !matches!(
            kind,
            Ok(K::AexprBetween | K::AexprNotBetween | K::AexprBetweenSym | K::AexprNotBetweenSym)
        );
        if let Some(operator) = names(&operation.name).filter(|_| real)
            && !is_harmless_operator(&operator)
        {
            // Its function may read whatever it likes.
            let more = Flow::opaque(format!("{operator} may return more than its operands"));
            return self.combine(union([left, right, more]), true);
        }
        let total = match kind {
            Ok(K::AexprOp | K::AexprOpAny | K::AexprOpAll) => {
                names(&operation.name).is_some_and(|name| total::operator(&name))
            }
            Ok(
                K::AexprDistinct
                | K::AexprNotDistinct
                | K::AexprNullif
                | K::AexprIn
                | K::AexprBetween
                | K::AexprNotBetween
                | K::AexprBetweenSym
                | K::AexprNotBetweenSym,
            ) => true,
            // A pattern can be malformed, and a clever one takes time.
            Ok(K::AexprLike | K::AexprIlike) => right.columns.is_empty() && right.opaque.is_none(),
            _ => false,
        };
        let both = union([left, right]);
        // Rows of different lengths can't be compared, nor arrays be put together.
        let fails = !total || both.varies;
        let whole = self.combine(both, fails);
        let joins = names(&operation.name).is_some_and(|name| name.name == "||");
        if joins || matches!(kind, Ok(K::AexprNullif)) { whole } else { whole.scalar() }
    }

    /// Parts of which some are worked out only if others say so.
    fn conditional(&mut self, parts: Flow) -> Flow {
        let fails = parts.fails;
        self.combine(parts, fails)
    }

    fn connected(&mut self, all: &p::BoolExpr) -> Flow {
        let flow = self.union_of(&all.args).scalar();
        if flow.fails {
            self.filter(&flow);
        }
        flow
    }

    fn case(&mut self, case: &p::CaseExpr) -> Flow {
        let mut tested = self.optional(case.arg.as_deref());
        let mut results = Flow::default();
        for when in &case.args {
            if let Some(N::CaseWhen(when)) = &when.node {
                tested.add(self.optional(when.expr.as_deref()));
                results.add(self.optional(when.result.as_deref()));
            }
        }
        results.add(self.optional(case.defresult.as_deref()));
        let chosen = case.args.iter().filter_map(|when| match &when.node {
            Some(N::CaseWhen(when)) => when.result.as_deref(),
            _ => None,
        });
        results.varies |= self.may_vary(chosen.chain(case.defresult.as_deref()));
        if case.arg.is_some() {
            self.meet(&tested);
        }
        let fails = tested.fails || results.fails || tested.varies;
        tested.varies = false;
        // What is tested isn't handed on: only which result.
        tested.values.clear();
        tested.add(results);
        if fails {
            self.filter(&tested);
        }
        tested.computed()
    }

    /// Whether one of several alternatives may be an array or row of another shape than the next. One
    /// that surely is neither makes all of them neither.
    fn may_vary<'n>(&mut self, all: impl Iterator<Item = &'n p::Node>) -> bool {
        let mut texts = false;
        for node in all {
            match &node.node {
                Some(N::AConst(constant)) => match &constant.val {
                    Some(p::a_const::Val::Sval(text)) => {
                        texts |= !text.sval.trim_start().starts_with(['{', '[', '(']);
                    }
                    Some(_) => return false,
                    None => {}
                },
                Some(N::FuncCall(call))
                    if names(&call.funcname).is_some_and(|name| total::plain(&name.name)) =>
                {
                    return false;
                }
                Some(N::TypeCast(cast)) if is_of_text(cast) => return false,
                Some(N::BoolExpr(_) | N::NullTest(_) | N::BooleanTest(_)) => return false,
                _ => {}
            }
        }
        self.literals_matter |= texts;
        !texts
    }

    fn sublink(&mut self, link: &p::SubLink) -> Flow {
        use p::SubLinkType as K;
        let tested = self.optional(link.testexpr.as_deref());
        let items = self.subquery(link.subselect.as_deref());
        let kind = K::try_from(link.sub_link_type);
        if matches!(kind, Ok(K::ExistsSublink)) {
            return Flow { fails: true, ..Flow::default() };
        }
        let total = link.oper_name.is_empty()
            || names(&link.oper_name).is_some_and(|name| total::operator(&name));
        let mut flow = union(items.iter().map(Item::flow));
        if names(&link.oper_name).is_some_and(|operator| !is_harmless_operator(&operator)) {
            flow.add(Flow::opaque("an operator of one's own may return more than its operands"));
        }
        let compares = matches!(kind, Ok(K::AllSublink | K::AnySublink | K::RowcompareSublink));
        if !compares {
            // More than one row is an error.
            flow.fails = true;
            return flow.computed();
        }
        flow.add(tested);
        let fails = !total || flow.varies;
        let mut flow = self.combine(flow, fails).scalar();
        flow.fails = true;
        flow
    }

    fn cast(&mut self, cast: &p::TypeCast) -> Flow {
        let argument = self.optional(cast.arg.as_deref());
        let Some(named) = &cast.type_name else {
            return self.combine(argument, true);
        };
        let to = names(&named.names);
        let total = named.array_bounds.is_empty()
            && !named.setof
            && !named.pct_type
            && to.is_some_and(|to| total::cast(&to));
        // The server reads a constant before it looks at any row.
        let constant = matches!(
            cast.arg.as_ref().and_then(|arg| arg.node.as_ref()),
            Some(N::AConst(_) | N::ParamRef(_))
        );
        self.combine(argument, !total && !constant)
    }

    /// `(x).a`, `(x)[i]`.
    pub(super) fn indirection(&mut self, indirection: &p::AIndirection) -> Flow {
        let argument = indirection.arg.as_ref().and_then(|arg| arg.node.as_ref());
        let first = indirection.indirection.first();
        if let (Some(N::ColumnRef(reference)), Some(field)) = (argument, first.and_then(string))
            && let [table] = reference.fields.as_slice()
            && let Some(table) = string(table)
            && let Some(columns) = self.names_range(reference)
        {
            let mut flow = self.qualified(None, table, field);
            for column in columns {
                flow.add(column);
            }
            if indirection.indirection.len() == 1 {
                return flow;
            }
        }
        let mut flow = self.optional(indirection.arg.as_deref());
        for step in &indirection.indirection {
            match step.node.as_ref() {
                Some(N::String(field)) if !total::takes_any(&field.sval) => {
                    // A field or, where there is none of that name, a function.
                    self.filter(&flow);
                    flow.fails = true;
                }
                other => {
                    flow.add(self.expression(step));
                    flow.varies |= matches!(other, Some(N::AIndices(indices)) if indices.is_slice);
                }
            }
        }
        self.combine(flow, false)
    }

    pub(super) fn json_value(&mut self, value: &p::JsonValueExpr) -> Flow {
        self.optional(value.raw_expr.as_deref())
    }

    /// XML and JSON constructors and queries: all of their parts, and all may fail.
    fn xml_or_json(&mut self, node: &N) -> Flow {
        let flow = match node {
            N::XmlExpr(xml) => {
                let mut flow = self.union_of(&xml.named_args);
                flow.add(self.union_of(&xml.args));
                flow
            }
            N::XmlSerialize(xml) => self.optional(xml.expr.as_deref()),
            N::JsonValueExpr(value) => self.json_value(value),
            N::JsonIsPredicate(test) => self.optional(test.expr.as_deref()),
            N::JsonArgument(argument) => self.boxed(argument.val.as_deref()),
            N::JsonKeyValue(pair) => self.pair(pair),
            N::JsonFuncExpr(call) => self.json_call(call),
            N::JsonParseExpr(parse) => self.boxed(parse.expr.as_deref()),
            N::JsonScalarExpr(scalar) => self.optional(scalar.expr.as_deref()),
            N::JsonSerializeExpr(all) => self.boxed(all.expr.as_deref()),
            N::JsonObjectConstructor(object) => self.union_of(&object.exprs),
            N::JsonArrayConstructor(array) => self.union_of(&array.exprs),
            N::JsonArrayQueryConstructor(array) => {
                union(self.subquery(array.query.as_deref()).iter().map(Item::flow))
            }
            N::JsonObjectAgg(aggregate) => {
                let mut flow = aggregate.arg.as_deref().map(|pair| self.pair(pair));
                self.json_aggregate(aggregate.constructor.as_deref(), flow.take())
            }
            N::JsonArrayAgg(aggregate) => {
                let flow = self.boxed(aggregate.arg.as_deref());
                self.json_aggregate(aggregate.constructor.as_deref(), Some(flow))
            }
            _ => {
                let reason = "an expression of a kind that has no place here";
                self.filters_are_opaque(reason);
                self.values_are_opaque(reason);
                Flow::opaque(reason)
            }
        };
        self.combine(flow, true)
    }

    fn boxed(&mut self, value: Option<&p::JsonValueExpr>) -> Flow {
        value.map_or_else(Flow::default, |value| self.json_value(value))
    }

    fn pair(&mut self, pair: &p::JsonKeyValue) -> Flow {
        let mut flow = self.optional(pair.key.as_deref());
        flow.add(self.boxed(pair.value.as_deref()));
        flow
    }

    fn json_call(&mut self, call: &p::JsonFuncExpr) -> Flow {
        let mut flow = self.boxed(call.context_item.as_deref());
        flow.add(self.optional(call.pathspec.as_deref()));
        flow.add(self.union_of(&call.passing));
        for behavior in [&call.on_empty, &call.on_error].into_iter().flatten() {
            flow.add(self.optional(behavior.expr.as_deref()));
        }
        flow
    }

    fn json_aggregate(
        &mut self,
        constructor: Option<&p::JsonAggConstructor>,
        arguments: Option<Flow>,
    ) -> Flow {
        let mut flow = arguments.unwrap_or_default();
        if let Some(constructor) = constructor {
            let mut deciding = self.optional(constructor.agg_filter.as_deref());
            deciding.add(self.union_of(&constructor.agg_order));
            if let Some(window) = &constructor.over {
                deciding.add(self.window(window));
            }
            self.filter(&deciding);
            flow.add(deciding);
        }
        flow
    }
}

/// Whether it is a cast to a text type.
fn is_of_text(cast: &p::TypeCast) -> bool {
    let to = cast.type_name.as_ref().filter(|to| to.array_bounds.is_empty());
    to.and_then(|to| names(&to.names)).is_some_and(|to| total::cast(&to))
}

fn parameter_value(number: i32) -> Flow {
    match u16::try_from(number) {
        Ok(number) => Flow::value(ValueAt::Parameter(number)),
        Err(_) => Flow::opaque("a parameter without a number"),
    }
}
