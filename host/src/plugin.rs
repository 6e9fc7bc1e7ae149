//! Plugins: WebAssembly components as steps. Everything that names wasmtime lies in this folder.

pub mod http;
