//! Makes components of modules, and looks at what a component imports and exports: enough to say at build time what a host
//! would refuse at load. Whether an import is granted is the host's to say.

use std::fs;
use std::io;
use std::path::Path;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::{ComponentEncoder, DecodedWasm};

/// What every plugin exports, without its version.
const EXPORT: &str = "dossier:plugin/enricher@";

/// Why something is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// It cannot be made into a component.
    #[error("cannot make a component of it: {0}")]
    Encode(String),
    /// It cannot be read as a component.
    #[error("what was built is no component: {0}")]
    Decode(String),
    /// It imports what no host offers.
    #[error("it imports {0}, which no host offers; wit/ says what there is")]
    Foreign(String),
    /// It does not export what a host calls.
    #[error("it does not export {EXPORT}…; its world must have `export dossier:plugin/enricher@1.0.0;`")]
    NoEnricher,
}

/// Makes a component of a module that carries its world, as wit-bindgen's output does. What it uses of WASI's first preview is
/// adapted to the second.
///
/// # Errors
/// The module carries no world, or does not keep to it.
pub fn encode(module: &[u8]) -> Result<Vec<u8>, ComponentError> {
    let mut encoder = ComponentEncoder::default();
    let encoded = encoder.validate(true).module(module).and_then(|encoder| {
        encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?.encode()
    });
    encoded.map_err(|error| ComponentError::Encode(format!("{error:#}")))
}

/// Looks at a component as a host would before it compiles it, and gives its imports in its own order.
///
/// # Errors
/// What a host would refuse.
pub fn check(component: &[u8]) -> Result<Vec<String>, ComponentError> {
    let decoded = wit_component::decode(component).map_err(|error| ComponentError::Decode(format!("{error:#}")))?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        return Err(ComponentError::Decode("it is a WIT package".into()));
    };
    let world = &resolve.worlds[world];
    let names = |items: &mut dyn Iterator<Item = _>| items.map(|key| resolve.name_world_key(key)).collect::<Vec<_>>();
    let imports = names(&mut world.imports.keys());
    let offered = |name: &&String| name.starts_with("dossier:plugin/") || name.starts_with("wasi:");
    let foreign: Vec<_> = imports.iter().filter(|name| !offered(name)).cloned().collect();
    if !foreign.is_empty() {
        return Err(ComponentError::Foreign(foreign.join(", ")));
    }
    if !names(&mut world.exports.keys()).iter().any(|name| name.starts_with(EXPORT)) {
        return Err(ComponentError::NoEnricher);
    }
    Ok(imports)
}

/// Writes a file, by rename, unless it has these bytes already: its time then says when it last changed.
///
/// # Errors
/// The file or its folder cannot be written.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let aside = folder.join(format!(".{}.{}", path.file_name().unwrap_or_default().display(), std::process::id()));
    fs::write(&aside, bytes)?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_would_refuse_is_refused() {
        let refused = |wat: &str| check(&wat::parse_str(wat).unwrap()).unwrap_err().to_string();
        assert!(refused("(component)").contains("does not export dossier:plugin/enricher"));
        assert!(refused("(module)").contains("does not export dossier:plugin/enricher"));
        let foreign = "(component (import \"acme:files/read@1.0.0\" (instance)))";
        assert!(refused(foreign).contains("imports acme:files/read@1.0.0"));
        assert!(encode(b"\0asm\x01\0\0\0").unwrap_err().to_string().contains("cannot make a component"));
    }
}
