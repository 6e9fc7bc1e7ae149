//! What a configuration comes to: each setting with its value and where that comes from. For whoever asks (`dossier config show`), and
//! for the host, which takes some settings over while it runs.
//!
//! Walks the [`schema`](super::schema::schema) and not the types, so that a new setting is shown as soon as it can be written. Never gives
//! a secret away: what may hold one is given as it is written, with asterisks in place of what does not come from the environment.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use toml::Value;

use super::place::Place;
use super::{Config, ENDPOINT_VARIABLES, NAME_VARIABLE, QueueKind, schema, value};

/// What stands in place of a secret; as long as the shortest token, so that what is shown is a configuration itself.
const MASK: &str = "****************";

/// A setting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// The section that it stands in, as in `[tables.blocklist]` or `[[step]]`; none at the top.
    #[serde(skip)]
    pub section: Vec<Segment>,
    /// Its own name.
    #[serde(skip)]
    pub key: String,
    /// Its whole name; a step goes by its name, as in `step.geo.fuel`.
    pub setting: String,
    /// Its value, without secrets.
    pub value: Value,
    /// Where the value comes from.
    pub origin: Origin,
    /// Whether a running host takes another value over; it is restarted for one otherwise.
    pub reload: bool,
    /// What tells whether it has changed: the value as it is written, secrets included.
    #[serde(skip)]
    written: Written,
}

/// A part of a section's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// A name.
    Name(String),
    /// Which element of an array.
    Index(usize),
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "from")]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The file.
    File {
        /// The line, where it is known.
        line: Option<usize>,
        /// The variables that were filled in.
        variables: Vec<String>,
    },
    /// A variable of the environment stands in its place.
    Variable {
        /// Its name.
        variable: String,
    },
}

/// A value that may be a secret: compared, never shown.
#[derive(Clone, PartialEq)]
struct Written(Value);

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// A part of the walk: what is there, and what the schema says of it.
struct Section<'a> {
    segments: Vec<Segment>,
    name: String,
    schema: &'a serde_json::Value,
    table: Option<&'a toml::Table>,
    reload: bool,
}

struct Walk<'a> {
    config: &'a Config,
    place: Place<'a>,
    variable: &'a dyn Fn(&str) -> Option<String>,
    found: Vec<Setting>,
}

/// Every setting of a configuration that has a value, section by section. `variable` gives the environment's variables.
pub fn settings(config: &Config, variable: &dyn Fn(&str) -> Option<String>) -> Vec<Setting> {
    let schema = schema::schema();
    // It was parsed when the configuration was made.
    let table: toml::Table = config.text.0.parse().unwrap_or_default();
    let place = Place { file: &config.file, text: &config.text.0 };
    let mut walk = Walk { config, place, variable, found: Vec::new() };
    let root =
        Section { segments: Vec::new(), name: String::new(), schema: &schema, table: Some(&table), reload: false };
    walk.section(&root);
    walk.found
}

/// What is different in another configuration, by name: a table, an interface and a step as a whole, other settings one by one.
pub fn changes(before: &Config, after: &Config) -> Changes {
    let nothing = |_: &str| None;
    let (before, after) = (settings(before, &nothing), settings(after, &nothing));
    let mut changes = Changes::default();
    let mut compare = |some: &[Setting], others: &[Setting]| {
        for setting in some {
            let other = others.iter().find(|other| other.setting == setting.setting);
            if other.is_some_and(|other| other.written == setting.written) {
                continue;
            }
            let name = setting.setting.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
            if setting.reload { &mut changes.taken } else { &mut changes.fixed }.insert(name);
        }
    };
    compare(&before, &after);
    compare(&after, &before);
    changes
}

/// What is different in another configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What a running host takes over.
    pub taken: BTreeSet<String>,
    /// What it has to be restarted for.
    pub fixed: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    fn section(&mut self, section: &Section<'a>) {
        let Some(properties) = section.schema["properties"].as_object() else { return };
        let (inner, mut own): (Vec<_>, Vec<_>) = properties.iter().partition(|(_, schema)| is_section(schema));
        // What must be said, such as a step's plugin, is what one looks for.
        let required = section.schema["required"].as_array();
        own.sort_by_key(|(key, _)| !required.is_some_and(|required| required.iter().any(|name| name == key.as_str())));
        // What stands directly in a section must come before the sections within it.
        for (key, schema) in own {
            self.setting(section, key, schema);
        }
        self.service_name(section);
        for (key, schema) in inner {
            let reload = section.reload || schema["x-reload"] == true;
            let there = section.table.and_then(|table| table.get(key));
            let name =
                |of: &str| if section.name.is_empty() { of.to_owned() } else { format!("{}.{of}", section.name) };
            let within = |segment: Option<Segment>| {
                let own = std::iter::once(Segment::Name(key.clone())).chain(segment);
                section.segments.iter().cloned().chain(own).collect::<Vec<_>>()
            };
            if schema["properties"].is_object() {
                let table = there.and_then(Value::as_table);
                self.section(&Section { segments: within(None), name: name(key), schema, table, reload });
            }
            for (each, table) in there
                .filter(|_| schema["additionalProperties"].is_object())
                .and_then(Value::as_table)
                .into_iter()
                .flatten()
            {
                let (segments, name) = (within(Some(Segment::Name(each.clone()))), name(&format!("{key}.{each}")));
                let schema = &schema["additionalProperties"];
                self.section(&Section { segments, name, schema, table: table.as_table(), reload });
            }
            for (index, table) in there.and_then(Value::as_array).into_iter().flatten().enumerate() {
                let each = self.config.steps.get(index).map_or_else(|| index.to_string(), |step| step.name.clone());
                let (segments, name) = (within(Some(Segment::Index(index))), name(&format!("{key}.{each}")));
                self.section(&Section { segments, name, schema: &schema["items"], table: table.as_table(), reload });
            }
        }
    }

    fn setting(&mut self, section: &Section<'a>, key: &str, schema: &serde_json::Value) {
        let said = section.table.and_then(|table| table.get(key));
        let kind = match self.config.queue.kind {
            QueueKind::Directory { .. } => "directory",
            QueueKind::Redis(_) => "redis",
        };
        if said.is_none() && schema["x-kind"].as_str().is_some_and(|only| only != kind) {
            return;
        }
        let setting = if section.name.is_empty() { key.to_owned() } else { format!("{}.{key}", section.name) };
        let (mut value, mut origin) = match said {
            Some(said) => {
                let mut variables = BTreeSet::new();
                let value = shown(said, schema["writeOnly"] == true, self.variable, &mut variables);
                let line = self.place.line_of_key(&dotted(&section.segments, key));
                (value, Origin::File { line, variables: variables.into_iter().collect() })
            }
            None => {
                let default = || Value::try_from(schema.get("default")?).ok();
                match self.first_of(&ENDPOINT_VARIABLES).filter(|_| setting == "telemetry.otlp") {
                    Some((variable, url)) => (Value::String(masked(&url)), Origin::Variable { variable }),
                    None => {
                        let Some(value) = self.derived(section, key).or_else(default) else { return };
                        (value, Origin::Default)
                    }
                }
            }
        };
        let written = Written(said.cloned().unwrap_or_else(|| value.clone()));
        if setting == "log.level"
            && let Some((variable, instead)) = self.first_of(&[crate::telemetry::logging::LEVEL_VARIABLE])
        {
            value = Value::String(instead);
            origin = Origin::Variable { variable };
        }
        self.found.push(Setting {
            section: section.segments.clone(),
            key: key.to_owned(),
            setting,
            value,
            origin,
            reload: section.reload || schema["x-reload"] == true,
            written,
        });
    }

    /// What stands in a variable and nowhere else: under which name spans are sent. Shown as what it is, for the file has no word for it.
    fn service_name(&mut self, section: &Section<'_>) {
        let Some((variable, name)) = self.first_of(&[NAME_VARIABLE]).filter(|_| section.name == "telemetry") else {
            return;
        };
        let value = Value::String(name);
        self.found.push(Setting {
            section: section.segments.clone(),
            key: variable.clone(),
            setting: variable.clone(),
            value: value.clone(),
            origin: Origin::Variable { variable },
            reload: false,
            written: Written(value),
        });
    }

    /// The first of these variables that is set, with its value.
    fn first_of(&self, names: &[&str]) -> Option<(String, String)> {
        let set = |name: &&str| {
            (self.variable)(name).filter(|value| !value.is_empty()).map(|value| ((*name).to_owned(), value))
        };
        names.iter().find_map(set)
    }

    /// Defaults that follow from something else.
    fn derived(&self, section: &Section<'_>, key: &str) -> Option<Value> {
        let config = self.config;
        match (section.segments.as_slice(), key) {
            ([Segment::Name(_), Segment::Index(index)], "name") => Some(config.steps.get(*index)?.name.clone().into()),
            ([Segment::Name(_), Segment::Index(index)], "timeout") => {
                Some(period(config.steps.get(*index)?.limits.timeout).into())
            }
            ([Segment::Name(tables), Segment::Name(table)], "format") if tables == "tables" => {
                Some(format!("{:?}", config.tables.get(table)?.format).to_ascii_lowercase().into())
            }
            ([Segment::Name(http), Segment::Name(api)], "burst") if http == "http" => {
                Some(Value::Integer(config.http.get(api)?.rate?.burst.get().into()))
            }
            _ => None,
        }
    }
}

/// Whether a part of the schema has settings of its own, each with its name.
fn is_section(schema: &serde_json::Value) -> bool {
    let top = schema["properties"].is_object() || schema["additionalProperties"]["properties"].is_object();
    // Observables are elements of one setting; steps are sections.
    top || schema["items"]["properties"]["plugin"].is_object()
}

fn dotted(segments: &[Segment], key: &str) -> String {
    let mut path = String::new();
    for segment in segments {
        let _ = match segment {
            Segment::Name(name) => write!(path, "{name}."),
            Segment::Index(index) => write!(path, "{index}."),
        };
    }
    path + key
}

/// A duration as the file says it.
fn period(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// A value as it may be shown: with variables filled in, unless it may be secret.
fn shown(
    value: &Value,
    secret: bool,
    variable: &dyn Fn(&str) -> Option<String>,
    variables: &mut BTreeSet<String>,
) -> Value {
    match value {
        Value::String(text) => {
            let named = |name: &str| {
                variables.insert(name.to_owned());
                variable(name)
            };
            let expanded = value::expand(text, named).unwrap_or_else(|_| text.clone());
            Value::String(if secret { masked(text) } else { expanded })
        }
        Value::Array(values) => {
            Value::Array(values.iter().map(|value| shown(value, secret, variable, variables)).collect())
        }
        Value::Table(table) => {
            let table = table.iter().map(|(key, value)| (key.clone(), shown(value, secret, variable, variables)));
            Value::Table(table.collect())
        }
        other => other.clone(),
    }
}

/// A text that may hold a secret, as it is written, but for what is no variable: of a URL the user's password and the query, of anything
/// else all but a word in front, as in `Bearer ${TOKEN}`.
fn masked(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        let word = text.split("${").next().unwrap_or_default();
        let plain =
            word.is_empty() || (word.ends_with(' ') && word.trim().bytes().all(|byte| byte.is_ascii_alphabetic()));
        let variables = text.strip_prefix(word).is_some_and(is_variable);
        return if plain && variables { text.to_owned() } else { MASK.to_owned() };
    };
    let mut safe = format!("{scheme}://");
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    if query.is_some_and(|query| query.contains('@')) && !rest.contains('@') {
        // A password with a question mark, perhaps: nobody can tell what is what.
        return safe + MASK;
    }
    // A password with a stray slash or @ is one all the same.
    let place = match rest.rsplit_once('@') {
        None => rest,
        Some((who, place)) => {
            let (user, password) = who.split_once(':').map_or((None, who), |(user, password)| (Some(user), password));
            let password = if is_variable(password) { password } else { MASK };
            safe.extend(user.map(|user| format!("{user}:")));
            safe.push_str(password);
            safe.push('@');
            place
        }
    };
    safe.push_str(place);
    for (at, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        safe.push(if at == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((_, value)) if is_variable(value) => safe.push_str(pair),
            Some((key, _)) => safe.extend([key, "=", MASK]),
            None => safe.push_str(MASK),
        }
    }
    safe
}

/// Whether a text is one variable and nothing else.
fn is_variable(text: &str) -> bool {
    text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).is_some_and(|name| !name.contains(['$', '{', '}']))
}

#[cfg(test)]
mod tests;
