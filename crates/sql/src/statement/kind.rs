//! Kinds of statements, named as a person would, in snake case.

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;

macro_rules! kinds {
    ($($variant:ident $name:literal;)*) => {
        /// The kind of a statement.
        pub(crate) fn kind(node: &N) -> &'static str {
            match node {
            $(N::$variant(_) => $name,)*
            N::VariableSetStmt(stmt) => set(stmt),
            N::TransactionStmt(stmt) => transaction(stmt),
            N::FetchStmt(stmt) => if stmt.ismove { "move" } else { "fetch" },
            N::GrantStmt(stmt) => if stmt.is_grant { "grant" } else { "revoke" },
            N::VacuumStmt(stmt) => if stmt.is_vacuumcmd { "vacuum" } else { "analyze" },
            N::CreateTableAsStmt(_) => "create_table_as",
            N::CreateFunctionStmt(stmt) => {
                if stmt.is_procedure { "create_procedure" } else { "create_function" }
            }
            N::DiscardStmt(_) => "discard",
            _ => "unknown",
            }
        }
    };
}

kinds! {
    InsertStmt "insert";
    DeleteStmt "delete";
    UpdateStmt "update";
    MergeStmt "merge";
    SelectStmt "select";
    ReturnStmt "return";
    CreateSchemaStmt "create_schema";
    AlterTableStmt "alter_table";
    AlterCollationStmt "alter_collation";
    AlterDomainStmt "alter_domain";
    GrantRoleStmt "grant_role";
    AlterDefaultPrivilegesStmt "alter_default_privileges";
    CopyStmt "copy";
    VariableShowStmt "show";
    CreateStmt "create_table";
    CreateTableSpaceStmt "create_tablespace";
    DropTableSpaceStmt "drop_tablespace";
    AlterTableSpaceOptionsStmt "alter_tablespace";
    AlterTableMoveAllStmt "alter_table";
    CreateExtensionStmt "create_extension";
    AlterExtensionStmt "alter_extension";
    CreateFdwStmt "create_foreign_data_wrapper";
    AlterFdwStmt "alter_foreign_data_wrapper";
    CreateForeignServerStmt "create_foreign_server";
    AlterForeignServerStmt "alter_foreign_server";
    CreateForeignTableStmt "create_foreign_table";
    CreateUserMappingStmt "create_user_mapping";
    AlterUserMappingStmt "alter_user_mapping";
    DropUserMappingStmt "drop_user_mapping";
    ImportForeignSchemaStmt "import_foreign_schema";
    CreatePolicyStmt "create_policy";
    AlterPolicyStmt "alter_policy";
    CreateAmStmt "create_access_method";
    CreateTrigStmt "create_trigger";
    CreateEventTrigStmt "create_event_trigger";
    AlterEventTrigStmt "alter_event_trigger";
    CreatePlangStmt "create_language";
    CreateRoleStmt "create_role";
    AlterRoleStmt "alter_role";
    AlterRoleSetStmt "alter_role";
    DropRoleStmt "drop_role";
    CreateSeqStmt "create_sequence";
    AlterSeqStmt "alter_sequence";
    DefineStmt "create";
    CreateDomainStmt "create_domain";
    CreateOpClassStmt "create_operator_class";
    CreateOpFamilyStmt "create_operator_family";
    AlterOpFamilyStmt "alter_operator_family";
    DropStmt "drop";
    TruncateStmt "truncate";
    CommentStmt "comment";
    SecLabelStmt "security_label";
    DeclareCursorStmt "declare";
    ClosePortalStmt "close";
    IndexStmt "create_index";
    CreateStatsStmt "create_statistics";
    AlterStatsStmt "alter_statistics";
    AlterFunctionStmt "alter_function";
    DoStmt "do";
    CallStmt "call";
    RenameStmt "rename";
    AlterObjectSchemaStmt "alter";
    AlterOwnerStmt "alter_owner";
    AlterOperatorStmt "alter_operator";
    AlterTypeStmt "alter_type";
    RuleStmt "create_rule";
    NotifyStmt "notify";
    ListenStmt "listen";
    UnlistenStmt "unlisten";
    CompositeTypeStmt "create_type";
    CreateEnumStmt "create_type";
    CreateRangeStmt "create_type";
    AlterEnumStmt "alter_type";
    ViewStmt "create_view";
    LoadStmt "load";
    CreatedbStmt "create_database";
    AlterDatabaseStmt "alter_database";
    AlterDatabaseRefreshCollStmt "alter_database";
    AlterDatabaseSetStmt "alter_database";
    DropdbStmt "drop_database";
    AlterSystemStmt "alter_system";
    ClusterStmt "cluster";
    ExplainStmt "explain";
    RefreshMatViewStmt "refresh_materialized_view";
    CheckPointStmt "checkpoint";
    LockStmt "lock";
    ConstraintsSetStmt "set_constraints";
    ReindexStmt "reindex";
    CreateConversionStmt "create_conversion";
    CreateCastStmt "create_cast";
    CreateTransformStmt "create_transform";
    PrepareStmt "prepare";
    ExecuteStmt "execute";
    DeallocateStmt "deallocate";
    DropOwnedStmt "drop_owned";
    ReassignOwnedStmt "reassign_owned";
    AlterTsdictionaryStmt "alter_text_search_dictionary";
    AlterTsconfigurationStmt "alter_text_search_configuration";
    CreatePublicationStmt "create_publication";
    AlterPublicationStmt "alter_publication";
    CreateSubscriptionStmt "create_subscription";
    AlterSubscriptionStmt "alter_subscription";
    DropSubscriptionStmt "drop_subscription";
    AlterExtensionContentsStmt "alter_extension";
    AlterObjectDependsStmt "alter";
}

fn set(stmt: &p::VariableSetStmt) -> &'static str {
    match p::VariableSetKind::try_from(stmt.kind) {
        Ok(p::VariableSetKind::VarReset | p::VariableSetKind::VarResetAll) => "reset",
        _ => "set",
    }
}

fn transaction(stmt: &p::TransactionStmt) -> &'static str {
    use p::TransactionStmtKind as K;
    match K::try_from(stmt.kind) {
        Ok(K::TransStmtBegin | K::TransStmtStart) => "begin",
        Ok(K::TransStmtCommit) => "commit",
        Ok(K::TransStmtRollback) => "rollback",
        Ok(K::TransStmtSavepoint) => "savepoint",
        Ok(K::TransStmtRelease) => "release",
        Ok(K::TransStmtRollbackTo) => "rollback_to",
        Ok(K::TransStmtPrepare) => "prepare_transaction",
        Ok(K::TransStmtCommitPrepared) => "commit_prepared",
        Ok(K::TransStmtRollbackPrepared) => "rollback_prepared",
        _ => "transaction",
    }
}
