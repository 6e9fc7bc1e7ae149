//! What a file shows of itself without being compiled or run: whether it is a component, and what it imports and exports. It is
//! read as far as it can be, so that something can be said of a file that no host takes, too.

use wasmparser::{Encoding, Parser, Payload};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A component.
    Component,
    /// A core module: half-way to a component.
    Module,
    /// No WebAssembly.
    Other,
}

/// The outline of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// What it is.
    pub kind: Kind,
    /// What it imports, in its own order; of a core module the modules that it imports from.
    pub imports: Vec<String>,
    /// What it exports, in its own order.
    pub exports: Vec<String>,
    /// Where it could not be read any further, and why.
    pub damage: Option<String>,
}

/// Reads a file's outline.
pub fn read(bytes: &[u8]) -> Outline {
    let mut outline = Outline { kind: Kind::Other, imports: Vec::new(), exports: Vec::new(), damage: None };
    if let Err(error) = fill(bytes, &mut outline) {
        outline.damage = Some(error.to_string());
    }
    outline
}

fn fill(bytes: &[u8], outline: &mut Outline) -> wasmparser::Result<()> {
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { encoding, .. } if outline.kind == Kind::Other => {
                outline.kind = if encoding == Encoding::Component { Kind::Component } else { Kind::Module };
            }
            // What is nested is not the component's own.
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    outline.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    outline.exports.push(export?.name.name.to_owned());
                }
            }
            Payload::ImportSection(section) if depth == 0 => {
                for import in section.into_imports() {
                    let module = import?.module.to_owned();
                    if !outline.imports.contains(&module) {
                        outline.imports.push(module);
                    }
                }
            }
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    outline.exports.push(export?.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_components_own_is_listed() {
        let component = wat::parse_str(
            r#"(component
                (import "evil:corp/exec@1.0.0" (instance))
                (core module $inner (import "hidden" "f" (func)) (func (export "g")))
                (component (import "nested:too/deep" (instance)))
                (instance $none)
                (export "own:made/thing@2.0.0" (instance $none)))"#,
        )
        .unwrap();
        let outline = read(&component);
        assert_eq!(outline.kind, Kind::Component);
        assert_eq!(outline.imports, ["evil:corp/exec@1.0.0"]);
        assert_eq!(outline.exports, ["own:made/thing@2.0.0"]);
        assert_eq!(outline.damage, None);
    }

    #[test]
    fn what_is_no_component_is_said_as_far_as_it_can_be_read() {
        let module = wat::parse_str(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)))"#).unwrap();
        let outline = read(&module);
        assert_eq!((outline.kind, outline.imports), (Kind::Module, vec!["wasi_snapshot_preview1".to_owned()]));
        let cut = read(&module[..module.len() - 2]);
        assert!(cut.kind == Kind::Module && cut.damage.is_some());
        assert_eq!(read(b"#!/bin/sh").kind, Kind::Other);
        assert_eq!(read(b"").kind, Kind::Other);
    }
}
