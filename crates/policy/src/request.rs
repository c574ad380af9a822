//! From an effect to the Cedar requests that it asks.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
};

use tidegate_event::{Action, Analysis, Effect, Relation};

use crate::columns;
use crate::compile::PolicySet;
use crate::decide::Subject;
use crate::name;
use crate::touched::ProtectedColumn;

/// What of the operation every request of it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) via: &'a str,
    pub(crate) db_user: &'a str,
    pub(crate) database: &'a str,
    /// Of a statement.
    pub(crate) analysis: Option<&'a Analysis>,
    pub(crate) login: Option<LoginFacts<'a>>,
    /// Of an SSH command that every common shell reads alike.
    pub(crate) command: Option<Command<'a>>,
    /// Whether it is asked as if it were approved.
    pub(crate) approved: bool,
}

/// An SSH command that every common shell reads alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command<'a> {
    pub(crate) text: &'a str,
    pub(crate) program: &'a str,
    pub(crate) arguments: &'a [String],
}

/// What only a login has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoginFacts<'a> {
    pub(crate) application: Option<&'a str>,
    pub(crate) client_tls: bool,
}

/// A request with the entities that it needs.
pub(crate) struct Question {
    pub(crate) request: Request,
    pub(crate) entities: Entities,
    /// The schema that was filled in where the statement names none.
    pub(crate) assumed_schema: Option<String>,
}

/// Something that can't be put to Cedar; it denies.
#[derive(Debug, thiserror::Error)]
#[error("the request can't be put to the policies: {0}")]
pub(crate) struct RequestError(String);

fn wrong(error: impl std::fmt::Display) -> RequestError {
    RequestError(format!("{error}"))
}

/// All questions that an effect asks: one, or for a name without a schema one for each schema
/// that it could be in.
pub(crate) fn questions(
    set: &PolicySet,
    subject: &Subject,
    asked: Asked<'_>,
    effect: &Effect,
) -> Result<Vec<Question>, RequestError> {
    let object = match (&effect.relation, object_kind(effect.action)) {
        (Some(relation), Some(kind)) => Some((relation, kind)),
        _ => None,
    };
    let Some((relation, kind)) = object else {
        return Ok(vec![question(set, subject, asked, effect, None, None)?]);
    };
    let mut questions = vec![question(set, subject, asked, effect, Some((relation, kind)), None)?];
    if relation.schema.is_none() {
        for schema in possible_schemas(set, subject, relation) {
            let assumed = Relation { schema: Some(schema.to_owned()), name: relation.name.clone() };
            let object = Some((&assumed, kind));
            questions.push(question(set, subject, asked, effect, object, Some(schema))?);
        }
    }
    Ok(questions)
}

fn possible_schemas<'a>(
    set: &'a PolicySet,
    subject: &Subject,
    relation: &Relation,
) -> impl Iterator<Item = &'a str> {
    let target = subject.target.0.clone();
    let named = set.qualified.get(&(target.clone(), relation.name.clone()));
    let schemas = set.schemas.get(&target);
    let mut all: Vec<&str> =
        named.into_iter().chain(schemas).flatten().map(String::as_str).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
}

/// The entity type that an action's object has; `None` where the target is what it acts on.
fn object_kind(action: Action) -> Option<&'static str> {
    match action {
        Action::Select
        | Action::CopyTo
        | Action::Insert
        | Action::Update
        | Action::Delete
        | Action::Truncate
        | Action::CopyFrom
        | Action::Ddl
        | Action::Grant
        | Action::Maintain
        | Action::Show
        | Action::Lock => Some("Relation"),
        Action::Execute => Some("Function"),
        Action::Login
        | Action::ServerFile
        | Action::Set
        | Action::SetRole
        | Action::Transaction
        | Action::Session
        | Action::Notify
        | Action::Replicate
        | Action::Cancel
        | Action::Exec
        | Action::Shell
        | Action::Subsystem
        | Action::Env
        | Action::Forward
        | Action::AgentForward
        | Action::X11
        | Action::FileRead
        | Action::FileWrite
        | Action::FileRemove
        | Action::FileList
        | Action::Unknown => None,
    }
}

fn question(
    set: &PolicySet,
    subject: &Subject,
    asked: Asked<'_>,
    effect: &Effect,
    object: Option<(&Relation, &str)>,
    assumed_schema: Option<&str>,
) -> Result<Question, RequestError> {
    let target = uid("Target", &subject.target.0)?;
    let mut entities = Vec::new();
    let resource = match object {
        Some((relation, kind)) => object_entities(relation, kind, subject, &target, &mut entities)?,
        None => target,
    };
    let context = context(asked, effect)?;
    put(set, subject, effect.action.name(), (resource, entities), context, assumed_schema)
}

/// All questions that an action on a protected column asks: one, or for a relation without a schema
/// one for each schema that it could be in.
pub(crate) fn column_questions(
    set: &PolicySet,
    subject: &Subject,
    asked: Asked<'_>,
    action: &str,
    column: &ProtectedColumn,
) -> Result<Vec<Question>, RequestError> {
    let ask = |relation: &Relation, assumed: Option<&str>| {
        let column = (relation, column.column.as_str(), column.class.as_str());
        let resource = column_entities(column, subject)?;
        put(set, subject, action, resource, plain_context(asked)?, assumed)
    };
    let mut questions = vec![ask(&column.relation, None)?];
    if column.relation.schema.is_none() {
        for schema in possible_schemas(set, subject, &column.relation) {
            let name = column.relation.name.clone();
            let assumed = Relation { schema: Some(schema.to_owned()), name };
            questions.push(ask(&assumed, Some(schema))?);
        }
    }
    Ok(questions)
}

/// An action on the target itself.
pub(crate) fn target_question(
    set: &PolicySet,
    subject: &Subject,
    asked: Asked<'_>,
    action: &str,
) -> Result<Question, RequestError> {
    let target = uid("Target", &subject.target.0)?;
    put(set, subject, action, (target, Vec::new()), plain_context(asked)?, None)
}

fn put(
    set: &PolicySet,
    subject: &Subject,
    action: &str,
    (resource, mut entities): (EntityUid, Vec<Entity>),
    context: Context,
    assumed_schema: Option<&str>,
) -> Result<Question, RequestError> {
    let principal = uid("ServiceAccount", &subject.principal.name)?;
    let target = uid("Target", &subject.target.0)?;
    entities.push(principal_entity(&principal, subject)?);
    entities.push(target_entity(&target, subject)?);
    let action = uid("Action", action)?;
    let request = Request::new(principal, action, resource, context, None).map_err(wrong)?;
    let entities = set.actions.clone().add_entities(entities, None).map_err(wrong)?;
    Ok(Question { request, entities, assumed_schema: assumed_schema.map(str::to_owned) })
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, RequestError> {
    let kind = EntityTypeName::from_str(kind).map_err(wrong)?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

fn string(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn principal_entity(uid: &EntityUid, subject: &Subject) -> Result<Entity, RequestError> {
    let number = RestrictedExpression::new_long(i64::from(subject.principal.uid));
    let mut attributes = HashMap::from([("uid".to_owned(), number)]);
    if let Some(path) = &subject.executable {
        attributes.insert("executable".to_owned(), string(path));
    }
    if let Some(path) = &subject.cgroup {
        attributes.insert("cgroup".to_owned(), string(path));
    }
    Entity::new(uid.clone(), attributes, HashSet::new()).map_err(wrong)
}

fn target_entity(uid: &EntityUid, subject: &Subject) -> Result<Entity, RequestError> {
    let attributes = HashMap::from([("protocol".to_owned(), string(subject.protocol.name()))]);
    Entity::new(uid.clone(), attributes, HashSet::new()).map_err(wrong)
}

/// The relation or function, the same name without schema, and the schema.
fn object_entities(
    relation: &Relation,
    kind: &str,
    subject: &Subject,
    target: &EntityUid,
    entities: &mut Vec<Entity>,
) -> Result<EntityUid, RequestError> {
    let attributes = || HashMap::from([("name".to_owned(), string(&relation.name))]);
    let bare = uid(kind, &name::object(&subject.target.0, None, &relation.name))?;
    let in_target = HashSet::from([target.clone()]);
    entities.push(Entity::new(bare.clone(), attributes(), in_target.clone()).map_err(wrong)?);
    let Some(schema) = &relation.schema else {
        return Ok(bare);
    };
    let schema_uid = uid("Schema", &name::schema(&subject.target.0, schema))?;
    entities.push(Entity::new_no_attrs(schema_uid.clone(), in_target));
    let full = uid(kind, &name::object(&subject.target.0, Some(schema), &relation.name))?;
    let parents = HashSet::from([bare, schema_uid]);
    entities.push(Entity::new(full.clone(), attributes(), parents).map_err(wrong)?);
    Ok(full)
}

/// The column, its relation, the same two without schema, the schema, and the class.
fn column_entities(
    (relation, column, class): (&Relation, &str, &str),
    subject: &Subject,
) -> Result<(EntityUid, Vec<Entity>), RequestError> {
    let target = uid("Target", &subject.target.0)?;
    let class = uid("Class", class)?;
    let mut entities = vec![Entity::new_no_attrs(class.clone(), HashSet::new())];
    let attributes = || HashMap::from([("name".to_owned(), string(column))]);
    let of =
        |schema| uid("Column", &name::column(&subject.target.0, schema, &relation.name, column));
    let in_relation = object_entities(relation, "Relation", subject, &target, &mut entities)?;
    let bare = of(None)?;
    let bare_relation = uid("Relation", &name::object(&subject.target.0, None, &relation.name))?;
    let parents = HashSet::from([bare_relation, class.clone()]);
    entities.push(Entity::new(bare.clone(), attributes(), parents).map_err(wrong)?);
    let Some(schema) = &relation.schema else {
        return Ok((bare, entities));
    };
    let full = of(Some(schema))?;
    let parents = HashSet::from([bare, in_relation, class]);
    entities.push(Entity::new(full.clone(), attributes(), parents).map_err(wrong)?);
    Ok((full, entities))
}

/// What every action but a login can be judged by.
fn pairs(asked: Asked<'_>, bounded: bool) -> Vec<(String, RestrictedExpression)> {
    vec![
        ("db_user".to_owned(), string(asked.db_user)),
        ("database".to_owned(), string(asked.database)),
        ("via".to_owned(), string(asked.via)),
        ("bounded".to_owned(), RestrictedExpression::new_bool(bounded)),
    ]
}

fn approved(asked: Asked<'_>) -> (String, RestrictedExpression) {
    ("approved".to_owned(), RestrictedExpression::new_bool(asked.approved))
}

fn plain_context(asked: Asked<'_>) -> Result<Context, RequestError> {
    let mut pairs = pairs(asked, true);
    pairs.push(approved(asked));
    Context::from_pairs(pairs).map_err(wrong)
}

fn context(asked: Asked<'_>, effect: &Effect) -> Result<Context, RequestError> {
    let mut pairs = pairs(asked, effect.bounded);
    pairs.push(approved(asked));
    match asked.login {
        Some(login) if effect.action == Action::Login => {
            pairs.push(("client_tls".to_owned(), RestrictedExpression::new_bool(login.client_tls)));
            if let Some(application) = login.application {
                pairs.push(("about".to_owned(), string(application)));
            }
        }
        _ => {
            if let (Some(relation), None) = (&effect.relation, object_kind(effect.action)) {
                pairs.push(("about".to_owned(), string(&relation.name)));
            }
            if let Some(command) = asked.command.filter(|_| effect.action == Action::Exec) {
                let arguments = command.arguments.iter().map(|one| string(one));
                pairs.push(("command".to_owned(), string(command.text)));
                pairs.push(("program".to_owned(), string(command.program)));
                let arguments = RestrictedExpression::new_set(arguments);
                pairs.push(("arguments".to_owned(), arguments));
            }
            if let (Some(relation), Some(analysis)) = (&effect.relation, asked.analysis)
                && matches!(effect.action, Action::Select | Action::CopyTo)
                && let Some(columns) = columns::read(analysis, relation)
            {
                let columns = RestrictedExpression::new_set(columns.into_iter().map(string));
                pairs.push(("columns".to_owned(), columns));
            }
        }
    }
    Context::from_pairs(pairs).map_err(wrong)
}
