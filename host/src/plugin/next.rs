//! The version of the contract that is in development: mirrors `wit/next`. It has what version 1 has, in the same shapes, and
//! what is new; a host serves it only where the operator wants a preview.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::contract::interface;
use super::host_calls::{State, settle};
use super::v1::{self, tables};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/next",
        world: "plugin",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "dossier:plugin/types": crate::plugin::v1::types,
            "dossier:plugin/tables": crate::plugin::v1::tables,
            "dossier:plugin/http": crate::plugin::v1::wit_http,
            "dossier:plugin/log": crate::plugin::v1::log,
        },
    });
}

pub(super) use bindings::PluginPre;

/// The contract's version.
pub(crate) const VERSION: &str = "2.0.0-dev";

/// Offers everything of this contract to a component.
///
/// # Errors
/// None in practice: a name defined twice.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    v1::add_to_linker(linker, VERSION)?;
    linker.instance(&interface("tables", VERSION))?.func_wrap_async(
        "lookup-all",
        |mut store: StoreContextMut<'_, State>, (table, keys): (String, Vec<String>)| {
            Box::new(async move {
                let state = store.data_mut();
                let rows: Result<Vec<_>, _> = keys.iter().map(|key| state.lookup(&table, key)).collect();
                let bytes = rows.iter().flatten().flatten().map(String::len).sum();
                settle(&mut store, bytes).await?;
                Ok((rows.map_err(tables::TableError::from),))
            })
        },
    )
}
