//! What a plugin asks for and why, carried in the component as a custom section: what the operator reviews before granting
//! anything. It gives no rights by itself; what a component imports is looked at apart from what it says here.
//!
//! Authors write it as `plugin.toml`; `dossier plugin build` puts it in as JSON.

use bytesize::ByteSize;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wasm_encoder::{ComponentSection as _, CustomSection};
use wasmparser::{Chunk, Parser, Payload};

/// The section's name.
pub const SECTION: &str = "dossier:manifest";

/// The largest section, in bytes.
const MAX_SECTION: usize = 64 << 10;

/// The longest name of something that is asked for, and the longest other text, in bytes.
const MAX_NAME: usize = 64;
const MAX_TEXT: usize = 1024;

/// The most tables, and the most HTTP interfaces.
const MAX_ASKS: usize = 64;

/// What a plugin asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// The tables that it looks into.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableAsk>,
    /// The HTTP interfaces that it sends requests to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpAsk>,
    /// Limits above the usual ones.
    pub limits: LimitsAsk,
    /// Settings to begin with: an example for the operator.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
    /// What this version does not know, as a later one may write it. It gives nothing; whoever reviews the plugin should see it.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A table that a plugin asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableAsk {
    /// What the plugin calls it; the operator's table may have another name where the settings say so.
    pub name: String,
    /// What it is for, in a sentence.
    pub why: String,
    /// Whether the plugin is of use without it.
    #[serde(default)]
    pub optional: bool,
}

/// An HTTP interface that a plugin asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpAsk {
    /// A name for its `[http.NAME]`.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// What it is for, in a sentence.
    pub why: String,
    /// Whether the plugin is of use without it.
    #[serde(default)]
    pub optional: bool,
    /// The header that holds the credentials, which the host adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// The limits that a plugin asks for, where the usual ones are too little.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsAsk {
    /// wasmtime's units: about one for each instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Milliseconds for one call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Linear memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The answer, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<u64>,
    /// Why, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// `plugin.toml` as it is written.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Written {
    tables: Vec<TableAsk>,
    http: Vec<HttpAsk>,
    limits: WrittenLimits,
    settings: Map<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct WrittenLimits {
    fuel: Option<u64>,
    timeout: Option<SignedDuration>,
    memory: Option<ByteSize>,
    answer: Option<ByteSize>,
    why: Option<String>,
}

impl Manifest {
    /// Reads a `plugin.toml`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.to_string())?;
        let limits = written.limits;
        let manifest = Self {
            tables: written.tables,
            http: written.http,
            limits: LimitsAsk {
                fuel: limits.fuel,
                timeout_ms: limits.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or_default()),
                memory: limits.memory.map(|size| size.as_u64()),
                answer: limits.answer.map(|size| size.as_u64()),
                why: limits.why,
            },
            settings: written.settings,
            unknown: Map::new(),
        };
        manifest.checked()
    }

    /// Reads what a component carries; none when it carries nothing. Looks at no other part of it, so the component need not be
    /// valid.
    ///
    /// # Errors
    /// The section is damaged.
    pub fn read(component: &[u8]) -> Result<Option<Self>, String> {
        let Some(json) = section(component) else { return Ok(None) };
        if json.len() > MAX_SECTION {
            return Err(format!("its section {SECTION} is longer than {MAX_SECTION} bytes"));
        }
        let manifest: Self = serde_json::from_slice(json)
            .map_err(|error| format!("its section {SECTION} cannot be read: {error}; build the plugin again"))?;
        manifest.checked().map(Some).map_err(|why| format!("its section {SECTION}: {why}"))
    }

    /// Puts it into a component that carries none yet.
    ///
    /// # Errors
    /// It is too large.
    pub fn append_to(&self, component: &mut Vec<u8>) -> Result<(), String> {
        let json = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        if json.len() > MAX_SECTION {
            return Err(format!("what it asks for is longer than {MAX_SECTION} bytes; write shorter"));
        }
        CustomSection { name: SECTION.into(), data: json.into() }.append_to_component(component);
        Ok(())
    }

    /// Whether the plugin can do without an interface of the contract, `tables` or `http`: all that it asks for there is
    /// optional.
    pub fn optional(&self, interface: &str) -> bool {
        match interface {
            "tables" => !self.tables.is_empty() && self.tables.iter().all(|ask| ask.optional),
            "http" => !self.http.is_empty() && self.http.iter().all(|ask| ask.optional),
            _ => false,
        }
    }

    /// Itself, if all its texts can be shown.
    fn checked(self) -> Result<Self, String> {
        if self.tables.len() > MAX_ASKS || self.http.len() > MAX_ASKS {
            return Err(format!("more than {MAX_ASKS} tables or HTTP interfaces"));
        }
        let text = |what: &str, text: &str, longest: usize| {
            if text.is_empty() || text.len() > longest || text.chars().any(char::is_control) {
                return Err(format!("{what} must have 1 to {longest} bytes on one line"));
            }
            Ok(())
        };
        for ask in &self.tables {
            text("a table's name", &ask.name, MAX_NAME)?;
            text(&format!("the why of table \"{}\"", ask.name), &ask.why, MAX_TEXT)?;
        }
        for ask in &self.http {
            text("an HTTP interface's name", &ask.name, MAX_NAME)?;
            text(&format!("the why of http \"{}\"", ask.name), &ask.why, MAX_TEXT)?;
            text(&format!("the url of http \"{}\"", ask.name), &ask.url, MAX_TEXT)?;
            if let Some(header) = &ask.credential {
                text(&format!("the credential of http \"{}\"", ask.name), header, MAX_NAME)?;
            }
        }
        for name in self.unknown.keys() {
            text("a name of what it asks for", name, MAX_NAME)?;
        }
        if let Some(why) = &self.limits.why {
            text("the why of limits", why, MAX_TEXT)?;
        }
        Ok(self)
    }
}

/// The section's bytes. A component that cannot be read to its end has no section; that it is damaged is found when it is
/// compiled.
///
/// What is nested is skipped: its sections are not the component's own, and a parser for each level of a few million would cost
/// whoever looks at the component hundreds of MB.
fn section(component: &[u8]) -> Option<&[u8]> {
    let mut parser = Parser::new(0);
    let mut at = 0;
    loop {
        let Chunk::Parsed { consumed, payload } = parser.parse(component.get(at..)?, true).ok()? else { return None };
        at += consumed;
        match payload {
            Payload::ModuleSection { unchecked_range: nested, .. }
            | Payload::ComponentSection { unchecked_range: nested, .. } => at = usize::try_from(nested.end).ok()?,
            Payload::CustomSection(section) if section.name() == SECTION => return Some(section.data()),
            Payload::End(_) => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = r#"
        [[tables]]
        name = "blocklist"
        why = "every address is looked up in it"

        [[http]]
        name = "api"
        url = "https://api.example"
        why = "a second opinion"
        optional = true
        credential = "Key"

        [limits]
        memory = "32MiB"
        timeout = "2s"
        why = "it keeps a model"

        [settings]
        feeds = ["blocklist"]
    "#;

    #[test]
    fn what_is_written_is_read_back_from_the_component() {
        let manifest = Manifest::from_toml(WRITTEN).unwrap();
        let mut component = wat::parse_str("(component (core module (@custom \"dossier:manifest\" \"{}\")))").unwrap();
        assert_eq!(Manifest::read(&component), Ok(None), "a nested module's section is not the component's");
        manifest.append_to(&mut component).unwrap();
        assert_eq!(Manifest::read(&component), Ok(Some(manifest.clone())));
        assert_eq!(manifest.limits.memory, Some(32 << 20));
        assert_eq!(manifest.settings["feeds"][0], "blocklist");
        assert!(manifest.optional("http") && !manifest.optional("tables") && !manifest.optional("log"));
    }

    #[test]
    fn a_mistake_is_named() {
        assert!(Manifest::from_toml("[[tables]]\nname = \"x\"").unwrap_err().contains("why"));
        assert!(Manifest::from_toml("[[table]]\n").unwrap_err().contains("table"));
        assert!(Manifest::from_toml("[[tables]]\nname = \"x\"\nwhy = \"a\\u001bb\"").unwrap_err().contains("one line"));
        let mut component = wat::parse_str("(component)").unwrap();
        CustomSection { name: SECTION.into(), data: b"{"[..].into() }.append_to_component(&mut component);
        assert!(Manifest::read(&component).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn what_is_not_known_is_kept_to_be_shown() {
        let mut component = wat::parse_str("(component)").unwrap();
        let json = br#"{"files":["/etc"],"settings":{"a":1}}"#;
        CustomSection { name: SECTION.into(), data: json[..].into() }.append_to_component(&mut component);
        let manifest = Manifest::read(&component).unwrap().unwrap();
        assert!(manifest.unknown.keys().eq(["files"]) && manifest.settings["a"] == 1);
    }
}
