//! Reading settings, with errors that an operator can act on.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The settings of a plugin that has none; any key is refused.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// Reads settings. No error tells a line or a column: the JSON is the host's rendering of the operator's TOML.
pub(crate) fn parse<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    let value: Value = serde_json::from_str(json).map_err(|error| format!("settings: not JSON: {error}"))?;
    if !value.is_object() {
        return Err("settings: not an object".into());
    }
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    match serde_ignored::deserialize(tracked, |path| unknown.push(format!("`{path}`"))) {
        Err(error) => match track.path().to_string().as_str() {
            "." => Err(format!("settings: {error}")),
            path => Err(format!("settings: {path}: {error}")),
        },
        Ok(_) if !unknown.is_empty() => Err(format!("settings: unknown key {}", unknown.join(", "))),
        Ok(settings) => Ok(settings),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Outer {
        feeds: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[expect(dead_code, reason = "only its reading is tested")]
        category: Category,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Category {
        TorExit,
    }

    #[test]
    fn no_settings_are_the_defaults() {
        assert!(parse::<Outer>("{}").unwrap().feeds.is_empty());
        assert!(parse::<NoSettings>("{}").is_ok());
    }

    #[test]
    fn an_unknown_key_is_refused_by_its_path() {
        let error = parse::<Outer>(r#"{"feeds":[{"category":"tor-exit","colour":1}]}"#).unwrap_err();
        assert_eq!(error, "settings: unknown key `feeds.0.colour`");
        assert!(parse::<NoSettings>(r#"{"a":1}"#).unwrap_err().contains("unknown field `a`"));
    }

    #[test]
    fn a_wrong_value_is_refused_by_its_path() {
        let error = parse::<Outer>(r#"{"feeds":[{"category":"tor"}]}"#).unwrap_err();
        assert_eq!(error, "settings: feeds[0].category: unknown variant `tor`, expected `tor-exit`");
        assert_eq!(parse::<Outer>("[]").unwrap_err(), "settings: not an object");
    }
}
