//! Function calls.

use pg_query::protobuf as p;
use tidegate_event::Relation;

use super::flow::Flow;
use super::{Tracer, total};
use crate::collect::{constant, names};
use crate::function::{is_cast, returns_its_arguments};

impl Tracer<'_> {
    /// What a call is made of. What can fail filters by its arguments; what isn't known to compute
    /// from its arguments alone is opaque.
    pub(super) fn call(&mut self, call: &p::FuncCall) -> Flow {
        let Some(function) = names(&call.funcname) else {
            self.filters_are_opaque("a function call without a name");
            return Flow::opaque("a function call without a name");
        };
        let mut flow = self.union_of(&call.args).computed();
        let mut deciding = self.union_of(&call.agg_order);
        deciding.add(self.optional(call.agg_filter.as_deref()));
        if let Some(window) = &call.over {
            deciding.add(self.window(window));
        }
        if call.agg_distinct {
            self.filter(&flow);
        }
        self.filter(&deciding);
        flow.add(deciding);
        let computes = returns_its_arguments(&function, call.args.len()) || is_cast(call);
        let known = computes && !self.shadowed(&function);
        if function.name == "set_config" && !sets_one_of_the_servers(call) {
            self.values_are_opaque("a setting of the client's own may hold anything");
        }
        if !known || total::reads_elsewhere(&function.name) {
            let body = if known { None } else { self.body(&function) };
            flow.add(body.unwrap_or_else(|| {
                Flow::opaque(format!("{function}() may return more than its arguments"))
            }));
        }
        let name = function.name.as_str();
        let total = known
            && total::function(name)
            // Its second argument is the name of an encoding.
            && (name != "length" || call.args.len() == 1)
            // Arrays of different dimensions make no array, and a large text may be too large.
            && (!flow.varies || total::scalar(name));
        let varies = total::sizes(name) || (call.args.len() > 1 && matches!(name, "lag" | "lead"));
        let whole = self.combine(flow, !total);
        if total::scalar(name) { whole.scalar() } else { whole.varying(varies) }
    }
}

impl Tracer<'_> {
    /// Whether a function of the database has the name of a built-in one, so that a call may mean it:
    /// by its argument types, or since the search path puts its schema first.
    fn shadowed(&mut self, function: &Relation) -> bool {
        let shadowed = function.schema.is_none()
            && self.names.is_some_and(|names| !names.functions(function).is_empty());
        if shadowed {
            self.called.insert(function.name.clone());
        }
        shadowed
    }
}

/// Whether `set_config` is told to set a setting of the server's, whose names have no dot.
fn sets_one_of_the_servers(call: &p::FuncCall) -> bool {
    call.args.first().and_then(constant).is_some_and(|name| !name.contains('.'))
}

/// The name of the only column that a function in FROM returns, where that is certain.
pub(super) fn single_column(call: &p::FuncCall) -> Option<&'static str> {
    /// Functions of `pg_catalog` that return a set or value of one scalar.
    const SCALAR: [&str; 13] = [
        "current_database",
        "current_schema",
        "generate_series",
        "generate_subscripts",
        "json_array_elements_text",
        "json_object_keys",
        "jsonb_array_elements_text",
        "jsonb_object_keys",
        "now",
        "regexp_split_to_table",
        "string_to_table",
        "version",
        "pg_backend_pid",
    ];
    let function = names(&call.funcname)?;
    let built_in = function.schema.as_deref().is_none_or(|schema| schema == "pg_catalog");
    let name = SCALAR.iter().find(|name| **name == function.name).filter(|_| built_in)?;
    // `json_array_elements_text` has a column named `value`.
    Some(if name.contains("array_elements") { "value" } else { name })
}
