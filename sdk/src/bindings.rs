//! What `wit/v1/plugin.wit` says, in Rust. Generated; the other modules give it a kinder form.
//!
//! The path means that this crate is used from the repository (a path or a git dependency), where the contract lies
//! beside it.

#![allow(missing_docs, unsafe_code, clippy::all, reason = "generated code")]

wit_bindgen::generate!({
    path: "../wit/v1",
    world: "plugin",
    pub_export_macro: true,
    default_bindings_module: "dossier_sdk::bindings",
    additional_derives: [Clone, PartialEq],
});
