//! The version of the contract that is in development: mirrors `wit/next`. It has what version 1 has, in the same shapes, and
//! what is new; a host serves it only where the operator wants a preview.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::contract::interface;
use super::host_calls::{self, State, settle};
use super::v1::{self, wit_http};

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

pub(super) use bindings::{Plugin, PluginPre};

/// The contract's version.
pub(super) const VERSION: &str = "2.0.0-dev";

/// The most requests that are sent at once.
const MAX_REQUESTS: usize = 16;

/// Offers everything of this contract to a component.
///
/// # Errors
/// None in practice: a name defined twice.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    v1::add_to_linker(linker, VERSION)?;
    linker.instance(&interface("http", VERSION))?.func_wrap_async(
        "send-all",
        |mut store: StoreContextMut<'_, State>, (requests,): (Vec<wit_http::Request>,)| {
            Box::new(async move {
                let over = requests.len().saturating_sub(MAX_REQUESTS);
                let requests = requests.into_iter().take(MAX_REQUESTS).map(Into::into).collect();
                let answers = host_calls::send_all(store.data_mut(), requests).await;
                let mut answers: Vec<_> = answers
                    .into_iter()
                    .map(|answer| answer.map(wit_http::Response::from).map_err(wit_http::HttpError::from))
                    .collect();
                let too_many = format!("at most {MAX_REQUESTS} requests are sent at once; send the others afterwards");
                answers.extend((0..over).map(|_| Err(wit_http::HttpError::Invalid(too_many.clone()))));
                let bytes = answers.iter().flatten().map(|response| response.body.len()).sum();
                settle(&mut store, bytes).await?;
                Ok((answers,))
            })
        },
    )
}
