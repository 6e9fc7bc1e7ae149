//! The versions of the contract that this host serves, side by side: which one a component is made for, and one way to call
//! them all. What each is stands in a file of its own.

use wasmparser::{Parser, Payload};
use wasmtime::component::{ComponentExportIndex, Instance, InstancePre, Linker, Resource, TypedFunc};
use wasmtime::{Engine, Store};

use super::host_calls::State;
use super::v1::{AlertHandle, types};
use super::{next, v1};

/// The package that all versions share.
pub(crate) const PACKAGE: &str = "dossier:plugin/";

/// What every plugin exports.
const ENRICHER: &str = "enricher";

/// The name of an interface as components import and export it.
pub(super) fn interface(name: &str, version: &str) -> String {
    format!("{PACKAGE}{name}@{version}")
}

/// A version of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contract {
    /// `wit/v1`, released.
    V1,
    /// `wit/next`, in development.
    Next,
}

impl Contract {
    /// Every version that is served.
    pub(super) const ALL: [Self; 2] = [Self::V1, Self::Next];

    /// The version as it stands in the names of its interfaces.
    pub(super) fn version(self) -> &'static str {
        match self {
            Self::V1 => v1::VERSION,
            Self::Next => next::VERSION,
        }
    }

    /// The version with this name.
    pub(super) fn from_version(version: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|contract| contract.version() == version)
    }

    /// Whether it is frozen.
    pub(super) fn is_released(self) -> bool {
        self != Self::Next
    }

    /// Where its text lies.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::V1 => "wit/v1",
            Self::Next => "wit/next",
        }
    }

    /// The version that a component is made for: the one whose `enricher` it exports.
    ///
    /// # Errors
    /// It exports none that is served; says which it does.
    pub(super) fn of(component: &[u8]) -> Result<Self, String> {
        let exports = exports(component).map_err(|error| format!("it is not a valid plugin: {error}"))?;
        Self::ALL
            .into_iter()
            .find(|contract| exports.contains(&interface(ENRICHER, contract.version())))
            .ok_or_else(|| unserved(&exports))
    }

    /// The linker with everything of this version.
    ///
    /// # Errors
    /// None in practice: a name defined twice.
    pub(super) fn linker(self, engine: &Engine) -> wasmtime::Result<Linker<State>> {
        let mut linker = Linker::new(engine);
        match self {
            Self::V1 => v1::add_to_linker(&mut linker, v1::VERSION)?,
            Self::Next => next::add_to_linker(&mut linker)?,
        }
        Ok(linker)
    }

    /// A component with its imports, ready to be instantiated.
    ///
    /// # Errors
    /// The component imports a function that there is not, or does not export what the contract says.
    pub(super) fn prepare(self, linked: InstancePre<State>) -> wasmtime::Result<Prepared> {
        // Whatever the version's world exports must be there.
        match self {
            Self::V1 => drop(v1::PluginPre::new(linked.clone())?),
            Self::Next => drop(next::PluginPre::new(linked.clone())?),
        }
        Prepared::new(linked, self.version())
    }

    /// The call of `configure` as `wasmtime-wizer` wants it: in WAVE, whose strings escape `"` and `\` as JSON does. The JSON
    /// of settings holds no other character that needs it.
    pub(super) fn configure_call(self, settings: &str) -> String {
        let settings = settings.replace('\\', "\\\\").replace('"', "\\\"");
        format!("{PACKAGE}{ENRICHER}.configure@{}(\"{settings}\")", self.version())
    }
}

/// The names that a component exports. Read from its bytes, because compiling it takes long.
fn exports(component: &[u8]) -> wasmparser::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    names.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

/// What is said of a component that exports no `enricher` of ours.
fn unserved(exports: &[String]) -> String {
    let served = Contract::ALL.map(Contract::version).join(" and ");
    let other = exports.iter().find_map(|name| name.strip_prefix(PACKAGE)?.strip_prefix("enricher@"));
    match other {
        Some(other) => format!(
            "it is made for version {other} of the contract, and this host serves {served}; update the host, or build the \
             plugin against wit/v1"
        ),
        None => format!(
            "it does not export {}, as every plugin must; build it against wit/v1",
            interface(ENRICHER, v1::VERSION)
        ),
    }
}

/// A component with its imports, ready to be instantiated. All versions have the same three functions in the same shapes.
pub(super) struct Prepared {
    linked: InstancePre<State>,
    describe: ComponentExportIndex,
    configure: ComponentExportIndex,
    enrich: ComponentExportIndex,
}

impl Prepared {
    /// Finds the functions, so that no instance has to look for them.
    fn new(linked: InstancePre<State>, version: &str) -> wasmtime::Result<Self> {
        let component = linked.component();
        let enricher = component.get_export_index(None, interface(ENRICHER, version));
        let function = |name| {
            let found = enricher.as_ref().and_then(|enricher| component.get_export_index(Some(enricher), name));
            found.ok_or_else(|| wasmtime::Error::msg(format!("it exports no {ENRICHER}.{name}")))
        };
        let (describe, configure, enrich) = (function("describe")?, function("configure")?, function("enrich")?);
        Ok(Self { describe, configure, enrich, linked })
    }

    /// Makes an instance.
    ///
    /// # Errors
    /// It traps at its start, or does not fit its bounds.
    pub(super) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Plugin> {
        let instance = self.linked.instantiate_async(&mut *store).await?;
        let enrich = instance.get_typed_func(store, self.enrich)?;
        Ok(Plugin { instance, describe: self.describe, configure: self.configure, enrich })
    }
}

/// An instance. What is called once in its life is looked for when it is: comparing the types of a function takes time.
pub(super) struct Plugin {
    instance: Instance,
    describe: ComponentExportIndex,
    configure: ComponentExportIndex,
    enrich: TypedFunc<(Resource<AlertHandle>,), (Result<types::Answer, types::Failure>,)>,
}

impl Plugin {
    /// What it says about itself.
    ///
    /// # Errors
    /// It traps, or is out of fuel.
    pub(super) async fn describe(&self, store: &mut Store<State>) -> wasmtime::Result<types::Description> {
        let describe = self.instance.get_typed_func::<(), (types::Description,)>(&mut *store, &self.describe)?;
        Ok(describe.call_async(store, ()).await?.0)
    }

    /// Gives it its settings; the inner error is its own.
    ///
    /// # Errors
    /// It traps, or is out of fuel.
    pub(super) async fn configure(
        &self,
        store: &mut Store<State>,
        settings: &str,
    ) -> wasmtime::Result<Result<(), String>> {
        let configure = self.instance.get_typed_func::<(&str,), (Result<(), String>,)>(&mut *store, &self.configure)?;
        Ok(configure.call_async(store, (settings,)).await?.0)
    }

    /// Has it enrich the alert that the store holds; the inner error is its own.
    ///
    /// # Errors
    /// It traps, or is out of fuel.
    pub(super) async fn enrich(
        &self,
        store: &mut Store<State>,
    ) -> wasmtime::Result<Result<types::Answer, types::Failure>> {
        Ok(self.enrich.call_async(store, (AlertHandle::lend(),)).await?.0)
    }
}
