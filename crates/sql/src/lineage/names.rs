//! The name that an output gets when the statement gives none.
//!
//! Source: PostgreSQL `FigureColnameInternal` in `src/backend/parser/parse_target.c`. Where it isn't
//! told here, the output has no name, and may be meant by any.

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;

use crate::collect::string;

/// The name of an output, where it is certain.
pub(super) fn output_name(value: &p::Node) -> Option<String> {
    match value.node.as_ref()? {
        N::ColumnRef(reference) => {
            reference.fields.iter().rev().find_map(string).map(str::to_owned)
        }
        N::FuncCall(call) => call.funcname.iter().rev().find_map(string).map(str::to_owned),
        N::CaseExpr(case) => {
            let default = case.defresult.as_deref();
            if matches!(default.and_then(|node| node.node.as_ref()), Some(N::ColumnRef(_))) {
                return None;
            }
            default.is_none().then(|| "case".to_owned())
        }
        N::CoalesceExpr(_) => Some("coalesce".to_owned()),
        N::RowExpr(_) => Some("row".to_owned()),
        N::AArrayExpr(_) => Some("array".to_owned()),
        N::AExpr(operation) => {
            let nullif = p::AExprKind::try_from(operation.kind) == Ok(p::AExprKind::AexprNullif);
            Some(if nullif { "nullif" } else { "?column?" }.to_owned())
        }
        N::AConst(_) | N::ParamRef(_) | N::BoolExpr(_) => Some("?column?".to_owned()),
        N::CollateClause(clause) => output_name(clause.arg.as_deref()?),
        _ => None,
    }
}
