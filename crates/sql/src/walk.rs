//! Walks a parse tree, so that no part of a statement stays unseen.
//!
//! Promises: the match over node kinds is exhaustive and has no catch-all arm, so a parser with
//! new node kinds doesn't compile until each has been placed. Each struct's parts are listed in
//! [`parts!`]. Nodes that only PostgreSQL's *analysis* makes, never its grammar, make the
//! statement unknown.
//!
//! Limits: depth is bounded by the decoder of the tree (see `parse`), hence so is recursion here.

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;

use crate::collect::Collector;

/// What can be looked through for effects.
pub(crate) trait Walk {
    fn walk(&self, to: &mut Collector);
}

impl<T: Walk> Walk for Vec<T> {
    fn walk(&self, to: &mut Collector) {
        for part in self {
            part.walk(to);
        }
    }
}

impl<T: Walk> Walk for Option<T> {
    fn walk(&self, to: &mut Collector) {
        if let Some(part) = self {
            part.walk(to);
        }
    }
}

impl<T: Walk> Walk for Box<T> {
    fn walk(&self, to: &mut Collector) {
        self.as_ref().walk(to);
    }
}

impl Walk for p::Node {
    fn walk(&self, to: &mut Collector) {
        if let Some(node) = &self.node {
            visit(node, to);
        }
    }
}

impl Walk for p::RangeVar {
    fn walk(&self, to: &mut Collector) {
        to.relation(self);
    }
}

impl Walk for p::FuncCall {
    fn walk(&self, to: &mut Collector) {
        to.call(self);
    }
}

impl Walk for p::SelectStmt {
    fn walk(&self, to: &mut Collector) {
        to.select(self);
    }
}

impl Walk for p::WithClause {
    fn walk(&self, to: &mut Collector) {
        to.with(self);
    }
}

impl Walk for p::AExpr {
    fn walk(&self, to: &mut Collector) {
        // `BETWEEN` stands in the operator's place, but is none.
        if !is_between(self.kind) {
            to.operator(&self.name);
        }
        self.lexpr.walk(to);
        self.rexpr.walk(to);
    }
}

fn is_between(kind: i32) -> bool {
    use p::AExprKind as K;
    matches!(
        K::try_from(kind),
        Ok(K::AexprBetween | K::AexprNotBetween | K::AexprBetweenSym | K::AexprNotBetweenSym)
    )
}

impl Walk for p::SubLink {
    fn walk(&self, to: &mut Collector) {
        to.operator(&self.oper_name);
        self.testexpr.walk(to);
        self.subselect.walk(to);
    }
}

impl Walk for p::SortBy {
    fn walk(&self, to: &mut Collector) {
        if !self.use_op.is_empty() {
            to.operator(&self.use_op);
        }
        self.node.walk(to);
    }
}

impl Walk for p::TypeName {
    fn walk(&self, to: &mut Collector) {
        to.type_name(self);
    }
}

impl Walk for p::RangeTableSample {
    fn walk(&self, to: &mut Collector) {
        to.sample(self);
    }
}

impl Walk for p::ColumnRef {
    fn walk(&self, to: &mut Collector) {
        to.column();
    }
}

impl Walk for p::CurrentOfExpr {
    fn walk(&self, to: &mut Collector) {
        to.column();
    }
}

/// For each struct, the parts that can hold something with an effect. Names, aliases and flags
/// are left out.
macro_rules! parts {
    ($($name:ident: $($field:ident)*;)*) => {
        $(impl Walk for p::$name {
            fn walk(&self, to: &mut Collector) {
                let _ = to;
                $(self.$field.walk(to);)*
            }
        })*
    };
}

parts! {
    IntoClause: rel options;
    GroupingFunc: args;
    NamedArgExpr: arg;
    BoolExpr: args;
    CaseExpr: arg args defresult;
    CaseWhen: expr result;
    RowExpr: args;
    CoalesceExpr: args;
    MinMaxExpr: args;
    XmlExpr: named_args args;
    JsonValueExpr: raw_expr formatted_expr;
    JsonIsPredicate: expr;
    JsonBehavior: expr;
    NullTest: arg;
    BooleanTest: arg;
    JoinExpr: larg rarg quals;
    TypeCast: arg type_name;
    CollateClause: arg;
    AIndices: lidx uidx;
    AIndirection: arg indirection;
    AArrayExpr: elements;
    ResTarget: indirection val;
    MultiAssignRef: source;
    WindowDef: partition_clause order_clause start_offset end_offset;
    RangeSubselect: subquery;
    RangeFunction: functions coldeflist;
    RangeTableFunc: docexpr rowexpr namespaces columns;
    RangeTableFuncCol: type_name colexpr coldefexpr;
    ColumnDef: type_name raw_default identity_sequence coll_clause constraints fdwoptions;
    TableLikeClause: relation;
    IndexElem: expr opclassopts;
    DefElem: arg;
    LockingClause:;
    XmlSerialize: expr type_name;
    PartitionElem: expr;
    PartitionSpec: part_params;
    PartitionBoundSpec: listdatums lowerdatums upperdatums;
    PartitionRangeDatum: value;
    PartitionCmd: name bound;
    GroupingSet: content;
    InferClause: index_elems where_clause;
    OnConflictClause: infer target_list where_clause;
    CteSearchClause:;
    CteCycleClause: cycle_mark_value cycle_mark_default;
    CommonTableExpr: ctequery search_clause cycle_clause;
    MergeWhenClause: condition target_list values;
    ReturningClause: exprs;
    JsonOutput: type_name;
    JsonArgument: val;
    JsonFuncExpr: context_item pathspec passing output on_empty on_error;
    JsonTablePathSpec: string;
    JsonTable: context_item pathspec passing columns on_error;
    JsonTableColumn: type_name pathspec columns on_empty on_error;
    JsonKeyValue: key value;
    JsonParseExpr: expr output;
    JsonScalarExpr: expr output;
    JsonSerializeExpr: expr output;
    JsonObjectConstructor: exprs output;
    JsonArrayConstructor: exprs output;
    JsonAggConstructor: output agg_filter agg_order over;
    JsonObjectAgg: constructor arg;
    JsonArrayAgg: constructor arg;
    AlterTableCmd: def;
    Constraint: raw_expr options where_clause pktable;
    CreateOpClassItem: ;
    StatsElem: expr;
    FunctionParameter: defexpr;
    VacuumRelation: relation;
    PublicationTable: relation where_clause;
    PublicationObjSpec: pubtable;
    List: items;
    JsonArrayQueryConstructor: query output;
}

fn visit(node: &N, to: &mut Collector) {
    macro_rules! place {
        (walk: $($walk:ident)*; leaf: $($leaf:ident)*; statement: $($statement:ident)*;
         analysed: $($analysed:ident)*;) => {
            match node {
                $(N::$walk(part) => part.walk(to),)*
                $(N::$leaf(_) => {})*
                $(N::$statement(_) => to.statement(node),)*
                $(N::$analysed(_) => to.unknown("the parser returned a node that no grammar rule makes"),)*
            }
        };
    }
    place! {
        walk: RangeVar IntoClause GroupingFunc NamedArgExpr BoolExpr SubLink CaseExpr CaseWhen
            RowExpr CoalesceExpr MinMaxExpr XmlExpr JsonValueExpr JsonIsPredicate JsonBehavior
            NullTest BooleanTest CurrentOfExpr JoinExpr TypeName ColumnRef AExpr TypeCast
            CollateClause FuncCall AIndices AIndirection AArrayExpr ResTarget MultiAssignRef
            SortBy WindowDef RangeSubselect RangeFunction RangeTableFunc RangeTableFuncCol
            RangeTableSample ColumnDef TableLikeClause IndexElem DefElem LockingClause
            XmlSerialize PartitionElem PartitionSpec PartitionBoundSpec PartitionRangeDatum
            PartitionCmd GroupingSet WithClause InferClause OnConflictClause CtesearchClause
            CtecycleClause CommonTableExpr MergeWhenClause ReturningClause JsonOutput
            JsonArgument JsonFuncExpr JsonTablePathSpec JsonTable JsonTableColumn JsonKeyValue
            JsonParseExpr JsonScalarExpr JsonSerializeExpr JsonObjectConstructor
            JsonArrayConstructor JsonAggConstructor JsonObjectAgg JsonArrayAgg AlterTableCmd
            Constraint CreateOpClassItem StatsElem FunctionParameter VacuumRelation
            PublicationTable PublicationObjSpec List JsonArrayQueryConstructor;
        leaf: Alias MergeSupportFunc SqlvalueFunction JsonFormat JsonReturning SetToDefault
            ParamRef RoleSpec AStar ReturningOption TriggerTransition AtalterConstraint
            ReplicaIdentityStmt Integer Float Boolean String BitString AConst ObjectWithArgs
            AccessPriv;
        statement: InsertStmt DeleteStmt UpdateStmt MergeStmt SelectStmt ReturnStmt
            CreateSchemaStmt AlterTableStmt AlterCollationStmt AlterDomainStmt GrantStmt
            GrantRoleStmt AlterDefaultPrivilegesStmt CopyStmt VariableSetStmt VariableShowStmt
            CreateStmt CreateTableSpaceStmt DropTableSpaceStmt AlterTableSpaceOptionsStmt
            AlterTableMoveAllStmt CreateExtensionStmt AlterExtensionStmt CreateFdwStmt
            AlterFdwStmt CreateForeignServerStmt AlterForeignServerStmt CreateForeignTableStmt
            CreateUserMappingStmt AlterUserMappingStmt DropUserMappingStmt
            ImportForeignSchemaStmt CreatePolicyStmt AlterPolicyStmt CreateAmStmt CreateTrigStmt
            CreateEventTrigStmt AlterEventTrigStmt CreatePlangStmt CreateRoleStmt AlterRoleStmt
            AlterRoleSetStmt DropRoleStmt CreateSeqStmt AlterSeqStmt DefineStmt CreateDomainStmt
            CreateOpClassStmt CreateOpFamilyStmt AlterOpFamilyStmt DropStmt TruncateStmt
            CommentStmt SecLabelStmt DeclareCursorStmt ClosePortalStmt FetchStmt IndexStmt
            CreateStatsStmt AlterStatsStmt CreateFunctionStmt AlterFunctionStmt DoStmt CallStmt
            RenameStmt AlterObjectSchemaStmt AlterOwnerStmt AlterOperatorStmt AlterTypeStmt
            RuleStmt NotifyStmt ListenStmt UnlistenStmt TransactionStmt CompositeTypeStmt
            CreateEnumStmt CreateRangeStmt AlterEnumStmt ViewStmt LoadStmt CreatedbStmt
            AlterDatabaseStmt AlterDatabaseRefreshCollStmt AlterDatabaseSetStmt DropdbStmt
            AlterSystemStmt ClusterStmt VacuumStmt ExplainStmt CreateTableAsStmt
            RefreshMatViewStmt CheckPointStmt DiscardStmt LockStmt ConstraintsSetStmt
            ReindexStmt CreateConversionStmt CreateCastStmt CreateTransformStmt PrepareStmt
            ExecuteStmt DeallocateStmt DropOwnedStmt ReassignOwnedStmt AlterTsdictionaryStmt
            AlterTsconfigurationStmt CreatePublicationStmt AlterPublicationStmt
            CreateSubscriptionStmt AlterSubscriptionStmt DropSubscriptionStmt
            AlterExtensionContentsStmt AlterObjectDependsStmt;
        analysed: Var Param Aggref WindowFunc WindowFuncRunCondition SubscriptingRef FuncExpr
            OpExpr DistinctExpr NullIfExpr ScalarArrayOpExpr SubPlan AlternativeSubPlan
            FieldSelect FieldStore RelabelType CoerceViaIo ArrayCoerceExpr ConvertRowtypeExpr
            CollateExpr CaseTestExpr ArrayExpr RowCompareExpr JsonConstructorExpr JsonExpr
            JsonTablePath JsonTablePathScan JsonTableSiblingJoin MergeAction CoerceToDomain
            CoerceToDomainValue NextValueExpr InferenceElem ReturningExpr TargetEntry
            RangeTblRef FromExpr OnConflictExpr Query RangeTblEntry RtepermissionInfo
            RangeTblFunction TableSampleClause WithCheckOption SortGroupClause WindowClause
            RowMarkClause TableFunc InlineCodeBlock CallContext SetOperationStmt RawStmt
            PlassignStmt IntList OidList;
    }
}
