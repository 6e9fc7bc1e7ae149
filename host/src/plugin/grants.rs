//! Policy: what a component imports, compared with what its step was granted. Decides before the component runs; what is
//! answered while it runs is in [`super::host_calls`].

use dossier_authoring::manifest::Manifest;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::contract::{Contract, PACKAGE};
use crate::config::StepConfig;

/// Interfaces that any component may import: they give nothing away.
const FREE: [&str; 2] = ["types", "log"];

/// The interfaces that a component imports.
pub(super) fn imports(engine: &Engine, component: &Component) -> Vec<String> {
    component.component_type().imports(engine).map(|(name, _)| name.to_owned()).collect()
}

/// Whether a component wants the empty world of `wasi:*`.
pub(super) fn wants_wasi(imports: &[String]) -> bool {
    imports.iter().any(|import| import.starts_with("wasi:"))
}

/// Refuses what the host does not know, whoever asks for it.
///
/// # Errors
/// The import, and what to do.
pub(super) fn check_known(imports: &[String], contract: Contract) -> Result<(), String> {
    let (served, folder) = (contract.version(), contract.folder());
    for import in imports {
        if import.starts_with("wasi:") {
            // Which of them there are, the linker knows; it names what it misses.
            continue;
        }
        let Some(interface) = import.strip_prefix(PACKAGE) else {
            return Err(format!(
                "it imports \"{import}\", which this host does not have; build it against the world dossier:plugin/plugin"
            ));
        };
        let (name, version) = interface.split_once('@').unwrap_or((interface, ""));
        if !["types", "tables", "http", "log"].contains(&name) {
            return Err(format!(
                "it imports \"{import}\", which the contract {served} does not have; build it against {folder}"
            ));
        }
        // A component imports from the version that it exports.
        if version != served {
            return Err(format!(
                "it imports \"{import}\", but it is made for version {served} of the contract; build all of it against \
                 {folder}"
            ));
        }
    }
    Ok(())
}

/// Refuses a step that the configuration names when its component imports what the step was not granted and its manifest does
/// not call optional. What was let through all the same, as a plugin that no step names is, is told `denied` when it asks.
///
/// # Errors
/// The import, and what to do.
pub(super) fn check_granted(imports: &[String], manifest: Option<&Manifest>, step: &StepConfig) -> Result<(), String> {
    if step.line.is_none() {
        return Ok(());
    }
    let mut missing = Vec::new();
    for import in imports {
        let Some(interface) = import.strip_prefix(PACKAGE) else { continue };
        let name = interface.split('@').next().unwrap_or(interface);
        let granted = match name {
            "tables" => !step.tables.is_empty(),
            "http" => !step.http.is_empty(),
            name => FREE.contains(&name),
        } || manifest.is_some_and(|manifest| manifest.optional(name));
        if !granted {
            missing.push(name);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let add: Vec<_> = missing.iter().map(|name| format!("{name} = [\"NAME\"]")).collect();
    Err(format!(
        "it imports {}, which the step is not granted; add {} to its [[step]], or use a plugin that does without",
        missing.join(" and "),
        add.join(" and "),
    ))
}

/// Refuses bytes that the operator has not reviewed: other ones than a step pins, or ones that ask for more than the version
/// before them without having been granted it. Bytes that a step pins have been reviewed.
///
/// # Errors
/// What is not granted, and how to grant it.
pub(super) fn check_review(
    sha256: &str,
    manifest: Option<&Manifest>,
    before: Option<&Manifest>,
    step: &StepConfig,
) -> Result<(), String> {
    if let Some(pinned) = &step.sha256 {
        if pinned != sha256 {
            return Err(format!(
                "its SHA-256 is {sha256}, but the step pins {pinned}; put the pinned file back, or review the new one \
                 (`dossier plugin inspect`) and change sha256 in its [[step]]"
            ));
        }
        return Ok(());
    }
    let (Some(manifest), Some(before), Some(_)) = (manifest, before, step.line) else { return Ok(()) };
    let more = asks_for_more(manifest, before, step);
    if more.is_empty() {
        return Ok(());
    }
    Err(format!(
        "it asks for more than the version before it: {}; or, once it is reviewed, pin it with sha256 = \"{sha256}\"",
        more.join("; ")
    ))
}

/// What a plugin asks for beyond an older version of it, as far as the step was not granted it: each with how to grant it. What
/// is optional is denied without a grant and so takes nothing.
fn asks_for_more(new: &Manifest, old: &Manifest, step: &StepConfig) -> Vec<String> {
    let mut more = Vec::new();
    for ask in new.tables.iter().filter(|ask| !ask.optional) {
        // What the old one could do without was never granted.
        let known = old.tables.iter().any(|old| old.name == ask.name && !old.optional);
        if !known && !step.tables.contains(&ask.name) {
            more.push(format!("table \"{0}\" ({1}): add \"{0}\" to tables = [...]", ask.name, ask.why));
        }
    }
    for ask in new.http.iter().filter(|ask| !ask.optional) {
        // The same name for another address is another thing to grant.
        let known = old.http.iter().any(|old| old.name == ask.name && old.url == ask.url && !old.optional);
        if !known && !step.http.contains(&ask.name) {
            more.push(format!(
                "http \"{0}\" at {1} ({2}): add [http.{0}], and \"{0}\" to http = [...]",
                ask.name, ask.url, ask.why
            ));
        }
    }
    let limits = &step.limits;
    let timeout = u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX);
    for (name, asked, before, granted) in [
        ("fuel", new.limits.fuel, old.limits.fuel, limits.fuel),
        ("timeout", new.limits.timeout_ms, old.limits.timeout_ms, timeout),
        ("memory", new.limits.memory, old.limits.memory, limits.memory as u64),
        ("answer", new.limits.answer, old.limits.answer, limits.answer as u64),
    ] {
        let Some(asked) = asked else { continue };
        if before.is_none_or(|before| asked > before) && asked > granted {
            let (asked, granted) = match name {
                "fuel" => (asked.to_string(), granted.to_string()),
                "timeout" => (format!("\"{asked}ms\""), format!("\"{granted}ms\"")),
                _ => (format!("\"{}KiB\"", asked.div_ceil(1024)), format!("\"{}KiB\"", granted >> 10)),
            };
            more.push(format!("{name} = {asked} where the step has {granted}: raise {name}"));
        }
    }
    more
}

#[cfg(test)]
mod tests {
    use dossier_authoring::manifest::HttpAsk;

    use super::*;

    const ASKING: &str = r#"
        [[tables]]
        name = "blocklist"
        why = "every address is looked up in it"

        [[http]]
        name = "api"
        url = "https://api.example"
        why = "a second opinion"
        optional = true

        [limits]
        memory = "32MiB"
        timeout = "2s"
    "#;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn named() -> StepConfig {
        StepConfig { line: Some(7), ..StepConfig::unnamed("geo") }
    }

    #[test]
    fn an_unknown_import_is_refused_by_its_name() {
        assert!(
            check_known(
                &names(&["dossier:plugin/types@1.0.0", "dossier:plugin/log@1.0.0", "wasi:io/poll@0.2.9"]),
                Contract::V1
            )
            .is_ok()
        );
        for unknown in ["evil:corp/exec", "dossier:plugin/files@1.0.0", "dossier:plugin/tables@2.0.0", "tables"] {
            assert!(check_known(&names(&[unknown]), Contract::V1).unwrap_err().contains(unknown));
        }
    }

    #[test]
    fn a_named_step_must_be_granted_what_its_plugin_imports() {
        let imports = names(&["dossier:plugin/tables@1.0.0", "dossier:plugin/log@1.0.0"]);
        assert!(check_granted(&imports, None, &named()).unwrap_err().contains("add tables = "));
        assert!(check_granted(&imports, None, &StepConfig { tables: vec!["geo".into()], ..named() }).is_ok());
        let optional = Manifest::from_toml("[[tables]]\nname = \"t\"\nwhy = \"w\"\noptional = true").unwrap();
        assert!(check_granted(&imports, Some(&optional), &named()).is_ok());
        let needed = Manifest::from_toml("[[tables]]\nname = \"t\"\nwhy = \"w\"").unwrap();
        assert!(check_granted(&imports, Some(&needed), &named()).is_err());
        let both = check_granted(&names(&["dossier:plugin/tables@1.0.0", "dossier:plugin/http@1.0.0"]), None, &named());
        assert!(both.unwrap_err().contains("imports tables and http"));
        let imports = names(&["dossier:plugin/http@1.0.0"]);
        assert!(check_granted(&imports, None, &StepConfig { tables: vec!["geo".into()], ..named() }).is_err());
        assert!(check_granted(&imports, None, &StepConfig { http: vec!["api".into()], ..named() }).is_ok());
    }

    #[test]
    fn a_plugin_that_no_step_names_may_import_all_that_is_known() {
        let imports = names(&["dossier:plugin/tables@1.0.0", "dossier:plugin/http@1.0.0"]);
        assert!(check_granted(&imports, None, &StepConfig::unnamed("geo")).is_ok());
    }

    #[test]
    fn only_what_is_new_not_optional_and_not_granted_is_more() {
        let old = Manifest::default();
        let new = Manifest::from_toml(ASKING).unwrap();
        let more = asks_for_more(&new, &old, &named());
        assert_eq!(more.len(), 3, "{more:?}");
        assert!(more[0].contains("\"blocklist\"") && more[1].contains("2000ms") && more[2].contains("32768KiB"));
        assert!(asks_for_more(&new, &new, &named()).is_empty());
        let mut granted = named();
        granted.tables = vec!["blocklist".into()];
        granted.limits.memory = 32 << 20;
        granted.limits.timeout = std::time::Duration::from_secs(2);
        assert!(asks_for_more(&new, &old, &granted).is_empty());
    }

    #[test]
    fn what_was_optional_and_is_not_any_more_is_more() {
        let ask = |optional: bool| {
            Manifest::from_toml(&format!(
                "[[tables]]\nname = \"t\"\nwhy = \"w\"\noptional = {optional}\n\
                 [[http]]\nname = \"a\"\nurl = \"https://a\"\nwhy = \"w\"\noptional = {optional}"
            ))
            .unwrap()
        };
        assert!(asks_for_more(&ask(true), &Manifest::default(), &named()).is_empty());
        assert_eq!(asks_for_more(&ask(false), &ask(true), &named()).len(), 2);
    }

    #[test]
    fn another_address_under_the_same_name_is_more() {
        let ask = |url: &str| Manifest {
            http: vec![HttpAsk { name: "api".into(), url: url.into(), why: "w".into(), ..HttpAsk::default() }],
            ..Manifest::default()
        };
        assert_eq!(asks_for_more(&ask("https://b"), &ask("https://a"), &named()).len(), 1);
        assert!(asks_for_more(&ask("https://a"), &ask("https://a"), &named()).is_empty());
    }
}
