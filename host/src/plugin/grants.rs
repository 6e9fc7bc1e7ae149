//! Policy: what a component imports, compared with what its step was granted. Decides before the component runs; what is
//! answered while it runs is in [`super::host_calls`].

use wasmtime::Engine;
use wasmtime::component::Component;

use super::v1;
use crate::config::StepConfig;

/// Interfaces that any component may import: they give nothing away.
const FREE: [&str; 2] = ["types", "log"];

/// Interfaces that a step must be granted.
pub(super) const GRANTED: [&str; 2] = ["tables", "http"];

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
pub(super) fn check_known(imports: &[String]) -> Result<(), String> {
    for import in imports {
        if import.starts_with("wasi:") {
            // Which of them there are, the linker knows; it names what it misses.
            continue;
        }
        let Some(interface) = import.strip_prefix(v1::PACKAGE) else {
            return Err(format!(
                "it imports \"{import}\", which this host does not have; build it against the world dossier:plugin/plugin"
            ));
        };
        let (name, version) = interface.split_once('@').unwrap_or((interface, ""));
        if !["types", "tables", "http", "log"].contains(&name) {
            return Err(format!(
                "it imports \"{import}\", which the contract {} does not have; build it against wit/v1",
                v1::VERSION
            ));
        }
        if !version.starts_with("1.0.") {
            return Err(format!(
                "it imports \"{import}\", but this host serves version {} of the contract; build it against wit/v1 or \
                 update the host",
                v1::VERSION
            ));
        }
    }
    Ok(())
}

/// Refuses a step that the configuration names when its component imports what the step was not granted and the plugin does
/// not call optional. What was let through all the same, as a plugin that no step names is, is told `denied` when it asks.
///
/// # Errors
/// The import, and what to do.
pub(super) fn check_granted(imports: &[String], optional: &[String], step: &StepConfig) -> Result<(), String> {
    if step.line.is_none() {
        return Ok(());
    }
    for import in imports {
        let Some(interface) = import.strip_prefix(v1::PACKAGE) else { continue };
        let name = interface.split('@').next().unwrap_or(interface);
        let granted = match name {
            "tables" => !step.tables.is_empty(),
            "http" => !step.http.is_empty(),
            name => FREE.contains(&name),
        } || optional.iter().any(|optional| optional == name);
        if !granted {
            return Err(format!(
                "it imports {name}, which the step is not granted; add {name} = [\"NAME\"] to its [[step]], or use a plugin \
                 that does without",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn named() -> StepConfig {
        StepConfig { line: Some(7), ..StepConfig::unnamed("geo") }
    }

    #[test]
    fn an_unknown_import_is_refused_by_its_name() {
        assert!(
            check_known(&names(&["dossier:plugin/types@1.0.0", "dossier:plugin/log@1.0.3", "wasi:io/poll@0.2.9"]))
                .is_ok()
        );
        for unknown in ["evil:corp/exec", "dossier:plugin/files@1.0.0", "dossier:plugin/tables@2.0.0", "tables"] {
            assert!(check_known(&names(&[unknown])).unwrap_err().contains(unknown));
        }
    }

    #[test]
    fn a_named_step_must_be_granted_what_its_plugin_imports() {
        let imports = names(&["dossier:plugin/tables@1.0.0", "dossier:plugin/log@1.0.0"]);
        assert!(check_granted(&imports, &[], &named()).unwrap_err().contains("add tables = "));
        assert!(check_granted(&imports, &[], &StepConfig { tables: vec!["geo".into()], ..named() }).is_ok());
        assert!(check_granted(&imports, &names(&["tables"]), &named()).is_ok());
        assert!(check_granted(&imports, &names(&["http"]), &named()).is_err());
        let imports = names(&["dossier:plugin/http@1.0.0"]);
        assert!(check_granted(&imports, &[], &StepConfig { tables: vec!["geo".into()], ..named() }).is_err());
        assert!(check_granted(&imports, &[], &StepConfig { http: vec!["api".into()], ..named() }).is_ok());
    }

    #[test]
    fn a_plugin_that_no_step_names_may_import_all_that_is_known() {
        let imports = names(&["dossier:plugin/tables@1.0.0", "dossier:plugin/http@1.0.0"]);
        assert!(check_granted(&imports, &[], &StepConfig::unnamed("geo")).is_ok());
    }
}
