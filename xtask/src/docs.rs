//! Pages that are made and not written: the contract's reference (`docs/plugins/reference.md`) from its text, and that of the
//! configuration ([`settings`]) from the program.

mod settings;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use wit_bindgen_core::Files;

const CONTRACT: &str = "wit/v1";
const REFERENCE: &str = "docs/plugins/reference.md";

const HEAD: &str = "\
# The contract's reference

Made from `wit/v1/plugin.wit` by `cargo xtask docs`; do not edit it here.

";

/// Writes both.
///
/// # Errors
/// The contract cannot be read, the program is not built, or a file cannot be written.
pub fn write(root: &Path) -> Result<()> {
    for (page, text) in [(REFERENCE, reference(root)?), (settings::PAGE, settings::page(root)?)] {
        let path = root.join(page);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{page} is written");
    }
    Ok(())
}

/// Checks that the reference of the configuration is what the program says, which must be built.
///
/// # Errors
/// It is not.
pub fn check_settings(root: &Path) -> Result<()> {
    let found =
        fs::read_to_string(root.join(settings::PAGE)).with_context(|| format!("cannot read {}", settings::PAGE))?;
    ensure!(found == settings::page(root)?, "{} is not what the types say; run `cargo xtask docs`", settings::PAGE);
    Ok(())
}

/// Checks that the reference is what the contract says.
///
/// # Errors
/// It is not.
pub fn check(root: &Path) -> Result<()> {
    let found = fs::read_to_string(root.join(REFERENCE)).with_context(|| format!("cannot read {REFERENCE}"))?;
    ensure!(found == reference(root)?, "{REFERENCE} is not what {CONTRACT} says; run `cargo xtask docs`");
    Ok(())
}

fn reference(root: &Path) -> Result<String> {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(root.join(CONTRACT))?;
    let world = resolve.select_world(&[package], Some("plugin"))?;
    let mut files = Files::default();
    wit_bindgen_markdown::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    let (_, text) = files.iter().find(|(name, _)| name.ends_with(".md")).context("no reference was made")?;
    let text = String::from_utf8(text.to_vec())?;
    let introduction = introduction(&fs::read_to_string(root.join(CONTRACT).join("plugin.wit"))?);
    let lines: Vec<_> = text.lines().map(kinder).collect();
    Ok(format!("{HEAD}{introduction}\n{}\n", lines.join("\n").trim()))
}

/// What the contract says before its package.
fn introduction(contract: &str) -> String {
    let lines = contract.lines().map_while(|line| line.strip_prefix("///"));
    lines.map(|line| format!("{}\n", line.trim())).collect()
}

/// A line as Markdown shows it rightly: without the tag that turns Markdown off and is never closed, and with a type's brackets as text.
fn kinder(line: &str) -> String {
    let line = line.trim_end();
    let line = if line == "<p>" { String::new() } else { line.replacen("  <p>", "  ", 1) };
    match line.split_once("</a>") {
        Some((anchor, shape)) if anchor.starts_with("- ") => format!("{anchor}</a>{}", shape.replace('<', "&lt;")),
        _ => line,
    }
}
