//! The JSON Schema that a plugin may declare for its results. A plugin is not trusted, so only keywords are taken whose checking
//! costs no more than reading schema and result: no references, no patterns, nothing that compares items with each other.

use jsonschema::{Draft, Validator};
use serde_json::Value;
use serde_json::value::RawValue;

use super::limits::cut;

/// The longest schema, in bytes.
const MAX_SCHEMA: usize = 16 << 10;

/// The most alternatives of all `enum` and `anyOf` together: each may be looked at for each value of a result.
const MAX_ALTERNATIVES: usize = 64;

/// Keywords whose value is a schema.
const ONE: [&str; 2] = ["additionalProperties", "items"];

/// Keywords whose value is a list of schemas.
const LIST: [&str; 1] = ["anyOf"];

/// Keywords whose value is an object of schemas.
const NAMED: [&str; 1] = ["properties"];

/// Keywords whose value is looked at by the validator only.
const PLAIN: [&str; 19] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "format",
    "type",
    "required",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
];

/// A schema, ready to check results.
#[derive(Debug)]
pub(super) struct ResultSchema(Validator);

/// Reads a schema.
///
/// # Errors
/// Why it cannot be used; the text goes on after "its result-schema".
pub(super) fn parse(text: &str) -> Result<ResultSchema, String> {
    if text.len() > MAX_SCHEMA {
        return Err(format!("is longer than {MAX_SCHEMA} bytes; shorten it"));
    }
    let schema: Value = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
    let mut alternatives = 0;
    check_keywords(&schema, &mut alternatives)?;
    if alternatives > MAX_ALTERNATIVES {
        return Err(format!(
            "has {alternatives} alternatives in enum and anyOf, more than {MAX_ALTERNATIVES}; leave some out"
        ));
    }
    let validator = jsonschema::options()
        .with_draft(Draft::Draft202012)
        .build(&schema)
        .map_err(|error| cut(format!("is no JSON Schema: {error}")))?;
    Ok(ResultSchema(validator))
}

fn check_keywords(schema: &Value, alternatives: &mut usize) -> Result<(), String> {
    let object = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(object) => object,
        _ => return Err("holds something that is no schema; write objects or booleans".into()),
    };
    for (keyword, value) in object {
        match keyword.as_str() {
            keyword if ONE.contains(&keyword) => check_keywords(value, alternatives)?,
            keyword if LIST.contains(&keyword) => {
                let all = value.as_array().map_or(&[][..], Vec::as_slice);
                *alternatives += all.len();
                all.iter().try_for_each(|schema| check_keywords(schema, alternatives))?;
            }
            keyword if NAMED.contains(&keyword) => {
                value
                    .as_object()
                    .into_iter()
                    .flat_map(|named| named.values())
                    .try_for_each(|schema| check_keywords(schema, alternatives))?;
            }
            "enum" => *alternatives += value.as_array().map_or(0, Vec::len),
            keyword if PLAIN.contains(&keyword) => {}
            _ => return Err(cut(format!("uses \"{keyword}\", which a host does not check; leave it out"))),
        }
    }
    Ok(())
}

impl ResultSchema {
    /// Checks a result.
    ///
    /// # Errors
    /// Where it does not conform, and why.
    pub(super) fn check(&self, fields: &RawValue) -> Result<(), String> {
        let fields: Value = serde_json::from_str(fields.get()).map_err(|error| error.to_string())?;
        self.0.validate(&fields).map_err(|error| {
            let at = error.instance_path().to_string();
            let at = if at.is_empty() { "the whole" } else { &at };
            cut(format!("fields do not conform to the plugin's own result-schema at {at}: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.into()).unwrap()
    }

    #[test]
    fn a_result_conforms_or_is_refused_with_the_place() {
        let schema = parse(
            r#"{"type":"object","required":["score"],"properties":{"score":{"type":"integer","maximum":100},
                "feeds":{"type":"array","items":{"type":"string"}}},"additionalProperties":false}"#,
        )
        .unwrap();
        assert_eq!(schema.check(&raw(r#"{"score":3,"feeds":["a"]}"#)), Ok(()));
        assert!(schema.check(&raw(r#"{"score":101}"#)).unwrap_err().contains("/score"));
        assert!(schema.check(&raw(r#"{"score":1,"feeds":[1]}"#)).unwrap_err().contains("/feeds/0"));
        assert!(schema.check(&raw("{}")).unwrap_err().contains("score"));
    }

    #[test]
    fn what_could_be_dear_or_reach_out_is_refused_by_its_name() {
        for (schema, named) in [
            (r##"{"$ref":"#"}"##, "$ref"),
            (r#"{"properties":{"a":{"items":{"pattern":"(a+)+"}}}}"#, "pattern"),
            (r#"{"anyOf":[{"uniqueItems":true}]}"#, "uniqueItems"),
            (r#"{"type":"nothing"}"#, "no JSON Schema"),
            ("[]", "no schema"),
            ("{", "no JSON"),
        ] {
            assert!(parse(schema).unwrap_err().contains(named), "{schema}");
        }
        let many = |count: usize| {
            format!(r#"{{"enum":[{}]}}"#, (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(","))
        };
        assert!(parse(&many(MAX_ALTERNATIVES)).is_ok());
        assert!(parse(&many(MAX_ALTERNATIVES + 1)).unwrap_err().contains("alternatives"));
        let long = format!(r#"{{"title":"{}"}}"#, "x".repeat(MAX_SCHEMA));
        assert!(parse(&long).unwrap_err().contains("longer"));
        assert!(parse(&long[10..]).is_err());
        assert!(parse(&format!(r#"{{"title":"{}"}}"#, "x".repeat(MAX_SCHEMA - 12))).is_ok());
    }
}
