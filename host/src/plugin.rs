//! Plugins: WebAssembly components as steps. Everything that names wasmtime lies in this folder.

/// PLACEHOLDER until the plugins are merged.
pub fn check(_config: &crate::config::Config) -> Vec<crate::config::Finding> {
    Vec::new()
}
