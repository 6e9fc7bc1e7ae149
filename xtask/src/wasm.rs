//! Builds the guests: compiles the workspace `plugins/` for wasm and makes components of it.
//!
//! It owns `target/wasm` (cargo's), `target/plugins` and `target/guests` (the components). How a toolchain is found and a
//! component made is `authoring`'s, as for any author's plugin; here it also installs what is missing where it may.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use dossier_authoring::component::{self, write_if_changed};
use dossier_authoring::manifest::Manifest;
use dossier_authoring::toolchain::{DEBIAN_PACKAGES, TARGET, Toolchain};

use crate::setup::{apt, say};

/// Every guest: the folder under `target/` that it goes to, and its package.
const GUESTS: [(&str, &str); 9] = [
    ("plugins", "ip-reputation"),
    ("plugins", "asset"),
    ("plugins", "geo"),
    ("plugins", "verdict"),
    ("guests", "calls"),
    ("guests", "mischief"),
    ("guests", "preview"),
    ("guests", "requests"),
    ("guests", "snoop"),
];

/// Builds every guest to `target/plugins/*.wasm` and `target/guests/*.wasm`. A file whose bytes are the same is left
/// alone, so that its time says when it last changed.
///
/// # Errors
/// No toolchain can be had (the text says what to install), a guest does not compile, or it imports what is not ours.
pub fn build(root: &Path) -> Result<()> {
    let toolchain = toolchain(root)?;
    if GUESTS.iter().any(|(folder, name)| !built(root, folder, name).exists()) {
        eprintln!("building the plugins for wasm; the first time takes a minute or two");
    }
    let status = toolchain.build(&root.join("plugins")).args(["--locked", "--quiet"]).status();
    ensure!(status.context("cannot run cargo for the plugins")?.success(), "the plugins do not compile");
    for (folder, name) in GUESTS {
        let module =
            root.join("target/wasm").join(TARGET).join("release").join(format!("{}.wasm", name.replace('-', "_")));
        let module = fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
        let mut bytes = component::encode(&module).with_context(|| name.to_owned())?;
        component::check(&bytes).with_context(|| name.to_owned())?;
        if let Ok(manifest) = fs::read_to_string(root.join("plugins").join(name).join("plugin.toml")) {
            let manifest =
                Manifest::from_toml(&manifest).map_err(|why| anyhow!("plugins/{name}/plugin.toml: {why}"))?;
            manifest.append_to(&mut bytes).map_err(|why| anyhow!("plugins/{name}/plugin.toml: {why}"))?;
        }
        let path = built(root, folder, name);
        write_if_changed(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Prints what was built: the path, the size in bytes and the imports of each component.
///
/// # Errors
/// A component is missing or is none.
pub fn print(root: &Path) -> Result<()> {
    for (folder, name) in GUESTS {
        let path = built(root, folder, name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let imports = component::check(&bytes)?.join(" ");
        println!("{}  {} bytes  {imports}", path.strip_prefix(root)?.display(), bytes.len());
    }
    Ok(())
}

fn built(root: &Path, folder: &str, name: &str) -> PathBuf {
    root.join("target").join(folder).join(format!("{name}.wasm"))
}

/// Finds a toolchain, and installs Debian's where there is none and that needs no question.
///
/// # Errors
/// There is none; the text says what to install.
pub fn toolchain(root: &Path) -> Result<Toolchain> {
    let memory = root.join("target/wasm/rustup-cannot");
    let find = || Toolchain::find(&memory, &mut |line| say(line));
    find().or_else(|missing| {
        apt(&DEBIAN_PACKAGES).with_context(|| missing.to_string())?;
        find().context("Debian's packages were installed, but do not give what is needed")
    })
}
