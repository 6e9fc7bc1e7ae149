//! The reference of the configuration, made from the schema that `dossier config schema` prints: `docs/configuration-reference.md`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Where the page lies.
pub const PAGE: &str = "docs/configuration-reference.md";

const HEAD: &str = "\
# Every setting

Made from the types that read `dossier.toml` by `cargo xtask docs`; do not edit it here. The same as a JSON Schema: `dossier config schema`. What
your own configuration comes to: `dossier config show`. How it is changed while a host runs: [configuration](configuration.md).

↻ marks what a running host takes over; anything else needs a restart.
";

/// The page, as the program that is built says it.
///
/// # Errors
/// The program is not built or fails.
pub fn page(root: &Path) -> Result<String> {
    let program = root.join("target/release/dossier");
    let output = Command::new(&program).args(["config", "schema"]).output();
    let output = output.with_context(|| format!("cannot run {}; build it first", program.display()))?;
    ensure!(output.status.success(), "dossier config schema failed: {}", String::from_utf8_lossy(&output.stderr));
    let schema: Value = serde_json::from_slice(&output.stdout).context("the schema is no JSON")?;
    Ok(render(&schema))
}

fn render(schema: &Value) -> String {
    let mut page = format!("{HEAD}\n{}\n", said(schema));
    section(&mut page, "", schema, false);
    page
}

/// A section's own settings as a table, then the sections within it.
fn section(page: &mut String, name: &str, schema: &Value, reload: bool) {
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let (inner, mut own): (Vec<_>, Vec<_>) = properties.partition(|(_, schema)| within(schema).is_some());
    own.sort_by_key(|(key, _)| !required.contains(&key.as_str()));
    if !own.is_empty() {
        page.push_str("\n| setting | default | what it is |\n|---|---|---|\n");
    }
    for (key, setting) in own {
        let mark = if reload || setting["x-reload"] == true { " ↻" } else { "" };
        let default = match setting.get("default") {
            Some(default) => format!("`{}`", toml(default)),
            None if required.contains(&key.as_str()) => "must be said".to_owned(),
            None => String::new(),
        };
        let mut what = said(setting).replace('|', "\\|").replace("\n\n", " ");
        let values = setting["enum"].as_array().cloned().unwrap_or_else(|| {
            let choices = setting["oneOf"].as_array().into_iter().flatten();
            choices.filter_map(|choice| choice.get("const").cloned()).collect()
        });
        if !values.is_empty() {
            let values: Vec<_> = values.iter().map(|value| format!("`{}`", toml(value))).collect();
            let _ = write!(what, " One of {}.", values.join(", "));
        }
        if let Some(kind) = setting["x-kind"].as_str() {
            let _ = write!(what, " Only with `kind = \"{kind}\"`.");
        }
        let _ = writeln!(page, "| `{key}`{mark} | {default} | {what} |");
    }
    for (key, schema) in inner {
        let Some((part, head)) = within(schema) else { continue };
        let reload = reload || schema["x-reload"] == true;
        let whole = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        let head = head.replace("NAME", &whole);
        let mark = if reload { " ↻" } else { "" };
        let _ = write!(page, "\n## `{head}`{mark}\n\n{}\n", said(schema));
        section(page, &whole, part, reload);
    }
}

/// What a section is made of, and how its head is written; none for a setting.
fn within(schema: &Value) -> Option<(&Value, &'static str)> {
    let (named, element) = (&schema["additionalProperties"], &schema["items"]);
    if schema["properties"].is_object() {
        Some((schema, "[NAME]"))
    } else if named["properties"].is_object() {
        Some((named, "[NAME.…]"))
    } else if element["properties"]["plugin"].is_object() {
        Some((element, "[[NAME]]"))
    } else {
        None
    }
}

fn said(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().to_owned()
}

/// A default as TOML writes it.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(table) if table.is_empty() => "{}".to_owned(),
        Value::Array(values) => format!("[{}]", values.iter().map(toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_section_is_a_table_of_its_settings() {
        let schema = json!({
            "description": "All of it.",
            "properties": {
                "state_dir": { "description": "Where.", "default": "state" },
                "queue": { "description": "Waiting.", "properties": {
                    "kind": { "description": "Which.", "default": "a", "enum": ["a", "b|c"] },
                    "url": { "description": "The server.", "x-kind": "redis" },
                } },
                "step": { "description": "Steps.", "x-reload": true, "items": {
                    "required": ["plugin"], "properties": { "plugin": { "description": "The stem." } }
                } },
            }
        });
        let page = render(&schema);
        for line in [
            "| `state_dir` | `\"state\"` | Where. |",
            "## `[queue]`\n\nWaiting.",
            "| `url` |  | The server. Only with `kind = \"redis\"`. |",
            "## `[[step]]` ↻\n\nSteps.",
            "| `plugin` ↻ | must be said | The stem. |",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
