//! Function calls.

use pg_query::protobuf as p;

use super::flow::Flow;
use super::{Tracer, total};
use crate::collect::{constant, names};
use crate::function::returns_its_arguments;

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
        let known = returns_its_arguments(&function);
        if function.name == "set_config" && !sets_one_of_the_servers(call) {
            self.values_are_opaque("a setting of the client's own may hold anything");
        }
        if !known || total::reads_elsewhere(&function.name) {
            let body = if known { None } else { self.body(&function) };
            flow.add(body.unwrap_or_else(|| {
                Flow::opaque(format!("{function}() may return more than its arguments"))
            }));
        }
        self.combine(flow, !(known && total::function(&function.name)))
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
