//! The JSON Schema of `dossier.toml`, made from the types that read it: for editors, for the reference in `docs/`, and for
//! [`super::effective`].

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::shape::RawConfig;

/// The schema, draft 2020-12, without references: whoever reads it can walk it down as the file is written.
///
/// Beside the standard's words a setting may have `x-kind`, the kind of queue that it is only for, and `x-reload`, when it and all below
/// it are taken over while the host runs; what has none needs a restart.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<RawConfig>().to_value();
    tidy(&mut schema);
    schema
}

/// Takes out what the types say and the file cannot: TOML has no null, and its integers have no width.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(tidy),
        Value::Object(schema) => {
            if schema.get("default").is_some_and(Value::is_null) {
                schema.remove("default");
            }
            // A setting may be named so, too; then it is a schema of its own.
            if schema.get("format").is_some_and(Value::is_string) {
                schema.remove("format");
            }
            if let Some(Value::Array(types)) = schema.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    schema.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(values)) = schema.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            without_null(schema);
            // What is said of a type is worth less than what is said of a setting, and a line is no paragraph.
            if let Some(Value::String(text)) = schema.get_mut("description") {
                *text = text.split("\n\n").map(|part| part.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
            }
            for (key, inner) in schema.iter_mut() {
                // Not what is only shown: a default is no schema.
                if key != "default" && key != "examples" {
                    tidy(inner);
                }
            }
        }
        _ => {}
    }
}

/// `anyOf` with null and one other schema becomes that.
fn without_null(schema: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = schema.get_mut("anyOf") else { return };
    choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
    if let [Value::Object(only)] = choices.as_mut_slice() {
        let only = std::mem::take(only);
        schema.remove("anyOf");
        for (key, value) in only {
            schema.entry(key).or_insert(value);
        }
    }
}

#[cfg(test)]
mod tests;
