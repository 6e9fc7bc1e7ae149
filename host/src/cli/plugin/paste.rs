//! The piece of `dossier.toml` that an operator pastes to run a plugin: what it asks for as grants, with its reasons as comments.
//! All of it comes from the plugin, which nobody trusts: texts are made safe, and keys and values are quoted.

use std::fmt::Write as _;

use dossier_authoring::manifest::Manifest;
use serde_json::Value;

use crate::cli::output::printable;

/// The block for a plugin of this name. Valid TOML; what is optional and not named by the example settings is commented out.
pub fn block(plugin: &str, sha256: &str, manifest: &Manifest) -> String {
    let named = |name: &str| manifest.settings.values().any(|value| names(value, name));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_block(&mut text, plugin, sha256, manifest, &named);
    text
}

fn write_block(
    text: &mut String,
    plugin: &str,
    sha256: &str,
    manifest: &Manifest,
    named: &dyn Fn(&str) -> bool,
) -> std::fmt::Result {
    for ask in &manifest.tables {
        let off = if ask.optional && !named(&ask.name) { "# " } else { "" };
        let optional = if ask.optional { " (optional)" } else { "" };
        writeln!(text, "# {}{optional}", printable(&ask.why))?;
        writeln!(text, "{off}[tables.{}]", key(&ask.name))?;
        writeln!(text, "{off}file = {}", quoted(&format!("{}.csv", file_name(&ask.name))))?;
        writeln!(text, "{off}key = \"ip\"  # the column that finds a row; leave it out for .mmdb and .txt\n")?;
    }
    for ask in &manifest.http {
        let off = if ask.optional && !named(&ask.name) && !named(&ask.url) { "# " } else { "" };
        let optional = if ask.optional { " (optional)" } else { "" };
        writeln!(text, "# {}{optional}", printable(&ask.why))?;
        writeln!(text, "{off}[http.{}]", key(&ask.name))?;
        writeln!(text, "{off}url = {}", quoted(&ask.url))?;
        if let Some(header) = &ask.credential {
            let variable = quoted(&format!("${{{}_KEY}}", variable(&ask.name)));
            writeln!(text, "{off}headers = {{ {} = {variable} }}  # from the environment", key(header))?;
        }
        text.push('\n');
    }
    writeln!(text, "[[step]]")?;
    writeln!(text, "plugin = {}", quoted(plugin))?;
    let tables = manifest.tables.iter().map(|ask| (ask.name.as_str(), ask.optional && !named(&ask.name)));
    write_names(text, "tables", tables.collect())?;
    let http = manifest.http.iter();
    let http = http.map(|ask| (ask.name.as_str(), ask.optional && !named(&ask.name) && !named(&ask.url)));
    write_names(text, "http", http.collect())?;
    let limits = &manifest.limits;
    let why = limits.why.as_ref().map_or_else(String::new, |why| format!("  # {}", printable(why)));
    let kib = |bytes: u64| quoted(&format!("{}KiB", bytes.div_ceil(1024)));
    let asked = [
        ("fuel", limits.fuel.map(|fuel| fuel.to_string())),
        ("timeout", limits.timeout_ms.map(|timeout| quoted(&format!("{timeout}ms")))),
        ("memory", limits.memory.map(kib)),
        ("answer", limits.answer.map(kib)),
    ];
    for (name, value) in asked {
        if let Some(value) = value {
            writeln!(text, "{name} = {value}{why}")?;
        }
    }
    if !manifest.settings.is_empty() {
        let settings = Value::Object(manifest.settings.clone());
        writeln!(text, "settings = {}", inline(&settings).unwrap_or_else(|| "{}".to_owned()))?;
    }
    writeln!(text, "# sha256 = \"{sha256}\"  # only this very file")
}

/// `tables = ["a"]`, with what is commented out behind it.
fn write_names(text: &mut String, grant: &str, names: Vec<(&str, bool)>) -> std::fmt::Result {
    let some = |off: bool| names.iter().filter(|one| one.1 == off).map(|one| quoted(one.0)).collect::<Vec<_>>();
    let (on, off) = (some(false).join(", "), some(true).join(", "));
    match (on.is_empty(), off.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => writeln!(text, "# {grant} = [{off}]"),
        (false, true) => writeln!(text, "{grant} = [{on}]"),
        (false, false) => writeln!(text, "{grant} = [{on}]  # optional: {off}"),
    }
}

/// Whether a value is, or holds, this text.
fn names(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => text == name,
        Value::Array(values) => values.iter().any(|value| names(value, name)),
        Value::Object(values) => values.values().any(|value| names(value, name)),
        _ => false,
    }
}

/// A value on one line; none for what TOML does not have.
fn inline(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => integer.to_string(),
            (None, Some(float)) => format!("{float:?}"),
            (None, None) => return None,
        },
        Value::String(text) => quoted(text),
        Value::Array(values) => format!("[{}]", values.iter().filter_map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(values) if values.is_empty() => "{}".to_owned(),
        Value::Object(values) => {
            let entries = values.iter().filter_map(|(name, value)| Some(format!("{} = {}", key(name), inline(value)?)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
    })
}

/// A basic string (<https://toml.io/en/v1.0.0#string>) without anything that a terminal obeys.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\'' => quoted.push(char),
            _ if char.escape_debug().len() == 1 => quoted.push(char),
            _ => quoted.push_str(&format!("\\U{:08x}", u32::from(char))),
        }
    }
    quoted.push('"');
    quoted
}

fn key(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { quoted(name) }
}

/// The name as a plain file's.
fn file_name(name: &str) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() || "-_".contains(char) { char } else { '-' };
    name.chars().map(plain).collect()
}

/// The name as a variable's.
fn variable(name: &str) -> String {
    let name: String =
        name.chars().map(|char| if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' }).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKING: &str = r#"
        [[tables]]
        name = "block \"list\""
        why = "every address; #1 [[step]]"
        [[tables]]
        name = "asn"
        why = "names networks"
        optional = true
        [[http]]
        name = "1api"
        url = "https://api.example/v2"
        why = "a second opinion"
        optional = true
        credential = "X-Key"
        [limits]
        memory = "32MiB"
        timeout = "2s"
        why = "it keeps a model"
        [settings]
        feeds = [{ table = "block \"list\"", odd = "\u202e\u001b[2J", n = 1.5, big = 7 }]
        api = "https://api.example/v2"
    "#;

    #[test]
    fn the_block_is_toml_that_grants_what_is_asked_for_and_no_more() {
        let manifest = Manifest::from_toml(ASKING).unwrap();
        let text = block("geo", &"a".repeat(64), &manifest);
        assert!(text.lines().all(|line| printable(line) == line), "{text}");
        let parsed: toml::Table = text.parse().unwrap();
        let step = &parsed["step"][0];
        assert_eq!(step["tables"].as_array().unwrap().len(), 1, "{text}");
        assert_eq!(step["tables"][0].as_str(), Some("block \"list\""));
        assert_eq!(step["http"][0].as_str(), Some("1api"), "its address stands in the settings: {text}");
        assert_eq!(step["timeout"].as_str(), Some("2000ms"));
        assert_eq!(parsed["http"]["1api"]["headers"]["X-Key"].as_str(), Some("${_1API_KEY}"));
        assert_eq!(step["settings"]["feeds"][0]["odd"].as_str(), Some("\u{202e}\u{1b}[2J"));
        assert_eq!(step["settings"]["feeds"][0]["n"].as_float(), Some(1.5));
        assert!(parsed["tables"].get("asn").is_none() && text.contains("# [tables.asn]"), "{text}");
    }

    #[test]
    fn a_plugin_that_asks_for_nothing_is_a_short_step() {
        let text = block("verdict", "aa", &Manifest::default());
        assert_eq!(text, "[[step]]\nplugin = \"verdict\"\n# sha256 = \"aa\"  # only this very file\n");
    }
}
