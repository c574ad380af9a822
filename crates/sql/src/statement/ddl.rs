//! Statements that define things, or say who may do what.
//!
//! A definition that holds a query (a view, a rule's actions, a `BEGIN ATOMIC` body) has the
//! query's effects too, since it hands them on to whoever uses it.

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;
use tidegate_event::{Action, Relation};

use crate::collect::{Collector, bare, names, relation_of, string};
use crate::walk::Walk;

/// Notes what a defining statement does; a statement of a new kind is unknown.
pub(super) fn note(node: &N, to: &mut Collector) {
    to.touching(Action::Ddl, |to| {
        if !(tables(node, to) || routines(node, to) || types(node, to) || others(node, to)) {
            grants(node, to);
        }
    });
}

fn name(text: &str) -> Option<Relation> {
    (!text.is_empty()).then(|| bare(text))
}

fn ddl(to: &mut Collector, relation: Option<Relation>) {
    to.add_on(Action::Ddl, relation);
}

fn tables(node: &N, to: &mut Collector) -> bool {
    match node {
        N::CreateStmt(stmt) => create_table(stmt, to),
        N::CreateForeignTableStmt(stmt) => {
            if let Some(base) = &stmt.base_stmt {
                create_table(base, to);
            }
        }
        N::CreateTableAsStmt(stmt) => {
            ddl(to, stmt.into.as_ref().and_then(|into| into.rel.as_ref()).map(relation_of));
            stmt.query.walk(to);
        }
        N::ViewStmt(stmt) => {
            ddl(to, stmt.view.as_ref().map(relation_of));
            stmt.query.walk(to);
        }
        N::AlterTableStmt(stmt) => alter_table(stmt, to),
        N::IndexStmt(stmt) => {
            ddl(to, stmt.relation.as_ref().map(relation_of));
            stmt.index_params.walk(to);
            stmt.where_clause.walk(to);
        }
        N::CreateStatsStmt(stmt) => {
            stmt.relations.walk(to);
            stmt.exprs.walk(to);
            ddl(to, names(&stmt.defnames));
        }
        N::AlterStatsStmt(stmt) => ddl(to, names(&stmt.defnames)),
        N::RuleStmt(stmt) => {
            ddl(to, stmt.relation.as_ref().map(relation_of));
            to.touching(Action::Select, |to| {
                stmt.where_clause.walk(to);
                stmt.actions.walk(to);
            });
        }
        N::CreateTrigStmt(stmt) => {
            ddl(to, stmt.relation.as_ref().map(relation_of));
            stmt.constrrel.walk(to);
            to.touching(Action::Select, |to| stmt.when_clause.walk(to));
        }
        N::CreateSeqStmt(stmt) => ddl(to, stmt.sequence.as_ref().map(relation_of)),
        N::AlterSeqStmt(stmt) => ddl(to, stmt.sequence.as_ref().map(relation_of)),
        N::DropStmt(stmt) => drop(stmt, to),
        N::RenameStmt(stmt) => object(stmt.relation.as_ref(), stmt.object.as_deref(), to),
        N::AlterObjectSchemaStmt(stmt) => {
            object(stmt.relation.as_ref(), stmt.object.as_deref(), to);
        }
        N::AlterObjectDependsStmt(stmt) => {
            object(stmt.relation.as_ref(), stmt.object.as_deref(), to);
        }
        N::CommentStmt(stmt) => object(None, stmt.object.as_deref(), to),
        N::AlterTableMoveAllStmt(stmt) => ddl(to, name(&stmt.new_tablespacename)),
        N::CreateSchemaStmt(stmt) => {
            ddl(to, name(&stmt.schemaname));
            stmt.schema_elts.walk(to);
        }
        _ => return false,
    }
    true
}

fn create_table(stmt: &p::CreateStmt, to: &mut Collector) {
    ddl(to, stmt.relation.as_ref().map(relation_of));
    stmt.table_elts.walk(to);
    stmt.inh_relations.walk(to);
    stmt.constraints.walk(to);
    stmt.partbound.walk(to);
    stmt.partspec.walk(to);
}

fn alter_table(stmt: &p::AlterTableStmt, to: &mut Collector) {
    let relation = stmt.relation.as_ref().map(relation_of);
    let changes_rights = stmt.cmds.iter().any(|command| {
        let Some(N::AlterTableCmd(command)) = &command.node else {
            return false;
        };
        matches!(
            p::AlterTableType::try_from(command.subtype),
            Ok(p::AlterTableType::AtChangeOwner
                | p::AlterTableType::AtEnableRowSecurity
                | p::AlterTableType::AtDisableRowSecurity
                | p::AlterTableType::AtForceRowSecurity
                | p::AlterTableType::AtNoForceRowSecurity)
        )
    });
    if changes_rights {
        to.add_on(Action::Grant, relation.clone());
    }
    ddl(to, relation);
    stmt.cmds.walk(to);
}

/// `DROP`: the object of a trigger, rule or policy is named behind its table.
fn drop(stmt: &p::DropStmt, to: &mut Collector) {
    let kind = p::ObjectType::try_from(stmt.remove_type);
    let on_table = matches!(
        kind,
        Ok(p::ObjectType::ObjectTrigger | p::ObjectType::ObjectRule | p::ObjectType::ObjectPolicy)
    );
    for dropped in &stmt.objects {
        let relation = match &dropped.node {
            Some(N::List(list)) if on_table => {
                names(list.items.get(..list.items.len().saturating_sub(1)).unwrap_or_default())
            }
            _ => named_object(dropped),
        };
        if matches!(kind, Ok(p::ObjectType::ObjectPolicy)) {
            to.add_on(Action::Grant, relation.clone());
        }
        ddl(to, relation);
    }
}

/// The name of an object in whichever form the grammar gives it.
fn named_object(node: &p::Node) -> Option<Relation> {
    match node.node.as_ref()? {
        N::List(list) => names(&list.items),
        N::RangeVar(named) => Some(relation_of(named)),
        N::ObjectWithArgs(object) => names(&object.objname),
        N::TypeName(object) => names(&object.names),
        N::String(_) => string(node).map(bare),
        _ => None,
    }
}

fn object(relation: Option<&p::RangeVar>, object: Option<&p::Node>, to: &mut Collector) {
    ddl(to, relation.map(relation_of).or_else(|| object.and_then(named_object)));
}

fn routines(node: &N, to: &mut Collector) -> bool {
    match node {
        N::CreateFunctionStmt(stmt) => create_function(stmt, to),
        N::AlterFunctionStmt(stmt) => {
            ddl(to, stmt.func.as_ref().and_then(|function| names(&function.objname)));
        }
        N::CreateCastStmt(_) | N::CreateTransformStmt(_) => ddl(to, None),
        N::CreateConversionStmt(stmt) => ddl(to, names(&stmt.conversion_name)),
        N::CreateAmStmt(stmt) => ddl(to, name(&stmt.amname)),
        N::CreateEventTrigStmt(stmt) => ddl(to, name(&stmt.trigname)),
        N::AlterEventTrigStmt(stmt) => ddl(to, name(&stmt.trigname)),
        N::CreatePlangStmt(stmt) => {
            to.add(Action::ServerFile);
            ddl(to, name(&stmt.plname));
        }
        N::AlterOperatorStmt(stmt) => {
            ddl(to, stmt.opername.as_ref().and_then(|operator| names(&operator.objname)));
        }
        N::CreateOpClassStmt(stmt) => ddl(to, names(&stmt.opclassname)),
        N::CreateOpFamilyStmt(stmt) => ddl(to, names(&stmt.opfamilyname)),
        N::AlterOpFamilyStmt(stmt) => ddl(to, names(&stmt.opfamilyname)),
        _ => return false,
    }
    true
}

/// Languages whose functions can't reach outside the database.
const TRUSTED_LANGUAGES: [&str; 7] =
    ["sql", "plpgsql", "plperl", "pltcl", "plv8", "plrust", "pllua"];

/// A function in a language that can reach files is `server_file`.
fn create_function(stmt: &p::CreateFunctionStmt, to: &mut Collector) {
    ddl(to, names(&stmt.funcname));
    let language = stmt.options.iter().find_map(|option| match &option.node {
        Some(N::DefElem(option)) if option.defname == "language" => {
            option.arg.as_deref().and_then(string)
        }
        _ => None,
    });
    let language = language.unwrap_or("sql").to_ascii_lowercase();
    if !TRUSTED_LANGUAGES.contains(&language.as_str()) {
        to.add(Action::ServerFile);
    }
    to.touching(Action::Select, |to| {
        stmt.parameters.walk(to);
        stmt.sql_body.walk(to);
    });
}

fn types(node: &N, to: &mut Collector) -> bool {
    match node {
        N::DefineStmt(stmt) => ddl(to, names(&stmt.defnames)),
        N::CompositeTypeStmt(stmt) => ddl(to, stmt.typevar.as_ref().map(relation_of)),
        N::CreateEnumStmt(stmt) => ddl(to, names(&stmt.type_name)),
        N::CreateRangeStmt(stmt) => ddl(to, names(&stmt.type_name)),
        N::AlterEnumStmt(stmt) => ddl(to, names(&stmt.type_name)),
        N::AlterTypeStmt(stmt) => ddl(to, names(&stmt.type_name)),
        N::CreateDomainStmt(stmt) => {
            ddl(to, names(&stmt.domainname));
            stmt.constraints.walk(to);
        }
        N::AlterDomainStmt(stmt) => {
            ddl(to, names(&stmt.type_name));
            stmt.def.walk(to);
        }
        N::AlterCollationStmt(stmt) => ddl(to, names(&stmt.collname)),
        N::AlterTsdictionaryStmt(stmt) => ddl(to, names(&stmt.dictname)),
        N::AlterTsconfigurationStmt(stmt) => ddl(to, names(&stmt.cfgname)),
        _ => return false,
    }
    true
}

fn others(node: &N, to: &mut Collector) -> bool {
    match node {
        N::CreateTableSpaceStmt(stmt) => {
            to.add(Action::ServerFile);
            ddl(to, name(&stmt.tablespacename));
        }
        N::DropTableSpaceStmt(stmt) => ddl(to, name(&stmt.tablespacename)),
        N::AlterTableSpaceOptionsStmt(stmt) => ddl(to, name(&stmt.tablespacename)),
        N::CreateExtensionStmt(stmt) => ddl(to, name(&stmt.extname)),
        N::AlterExtensionStmt(stmt) => ddl(to, name(&stmt.extname)),
        N::AlterExtensionContentsStmt(stmt) => ddl(to, name(&stmt.extname)),
        N::CreateFdwStmt(stmt) => ddl(to, name(&stmt.fdwname)),
        N::AlterFdwStmt(stmt) => ddl(to, name(&stmt.fdwname)),
        N::CreateForeignServerStmt(stmt) => ddl(to, name(&stmt.servername)),
        N::AlterForeignServerStmt(stmt) => ddl(to, name(&stmt.servername)),
        N::ImportForeignSchemaStmt(stmt) => ddl(to, name(&stmt.local_schema)),
        N::CreatedbStmt(stmt) => ddl(to, name(&stmt.dbname)),
        N::AlterDatabaseStmt(stmt) => ddl(to, name(&stmt.dbname)),
        N::AlterDatabaseRefreshCollStmt(stmt) => ddl(to, name(&stmt.dbname)),
        N::AlterDatabaseSetStmt(stmt) => ddl(to, name(&stmt.dbname)),
        N::DropdbStmt(stmt) => ddl(to, name(&stmt.dbname)),
        N::CreatePublicationStmt(stmt) => replicated(&stmt.pubname, to),
        N::AlterPublicationStmt(stmt) => replicated(&stmt.pubname, to),
        N::CreateSubscriptionStmt(stmt) => replicated(&stmt.subname, to),
        N::AlterSubscriptionStmt(stmt) => replicated(&stmt.subname, to),
        N::DropSubscriptionStmt(stmt) => replicated(&stmt.subname, to),
        N::AlterSystemStmt(stmt) => {
            // It changes the server for everybody, which `set` alone doesn't say.
            ddl(to, None);
            stmt.setstmt.iter().for_each(|set| super::variable_set(set, to));
        }
        _ => return false,
    }
    true
}

fn replicated(named: &str, to: &mut Collector) {
    to.add_on(Action::Replicate, name(named));
    ddl(to, name(named));
}

fn grants(node: &N, to: &mut Collector) {
    match node {
        N::GrantStmt(stmt) => grant_on(&stmt.objects, to),
        N::AlterOwnerStmt(stmt) => {
            let relation = stmt.relation.as_ref().map(relation_of);
            let relation = relation.or_else(|| stmt.object.as_deref().and_then(named_object));
            to.add_on(Action::Grant, relation.clone());
            ddl(to, relation);
        }
        N::CreatePolicyStmt(stmt) => {
            policy(stmt.table.as_ref(), stmt.qual.as_deref(), stmt.with_check.as_deref(), to);
        }
        N::AlterPolicyStmt(stmt) => {
            policy(stmt.table.as_ref(), stmt.qual.as_deref(), stmt.with_check.as_deref(), to);
        }
        N::SecLabelStmt(stmt) => {
            to.add_on(Action::Grant, stmt.object.as_deref().and_then(named_object));
        }
        N::GrantRoleStmt(_)
        | N::AlterDefaultPrivilegesStmt(_)
        | N::CreateRoleStmt(_)
        | N::AlterRoleStmt(_)
        | N::AlterRoleSetStmt(_)
        | N::DropRoleStmt(_)
        | N::CreateUserMappingStmt(_)
        | N::AlterUserMappingStmt(_)
        | N::DropUserMappingStmt(_)
        | N::ReassignOwnedStmt(_) => to.add(Action::Grant),
        N::DropOwnedStmt(_) => {
            to.add(Action::Grant);
            ddl(to, None);
        }
        _ => to.unknown("a statement of a kind that has no place yet"),
    }
}

fn grant_on(objects: &[p::Node], to: &mut Collector) {
    if objects.is_empty() {
        to.add(Action::Grant);
    }
    for object in objects {
        to.add_on(Action::Grant, named_object(object));
    }
}

fn policy(
    table: Option<&p::RangeVar>,
    qual: Option<&p::Node>,
    check: Option<&p::Node>,
    to: &mut Collector,
) {
    to.add_on(Action::Grant, table.map(relation_of));
    to.touching(Action::Select, |to| {
        for expression in [qual, check].into_iter().flatten() {
            expression.walk(to);
        }
    });
}
