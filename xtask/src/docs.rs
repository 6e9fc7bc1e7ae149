//! The contract's reference, made from its text: `docs/plugins/reference.md`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use wit_bindgen_core::Files;

const CONTRACT: &str = "wit/v1";
const REFERENCE: &str = "docs/plugins/reference.md";

const HEAD: &str = "\
# The contract's reference

Made from [`wit/v1/plugin.wit`](../../wit/v1/plugin.wit) by `cargo xtask docs`; do not edit it here.

";

/// Writes the reference.
///
/// # Errors
/// The contract cannot be read, or the file cannot be written.
pub fn write(root: &Path) -> Result<()> {
    let path = root.join(REFERENCE);
    fs::write(&path, reference(root)?).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{REFERENCE} is written");
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

/// A line as Markdown shows it rightly: without the tag that turns Markdown off, and with a type's brackets as text.
fn kinder(line: &str) -> String {
    let line = line.trim_end().replacen("  <p>", "  ", 1);
    match line.split_once("</a>") {
        Some((anchor, shape)) if anchor.starts_with("- ") => format!("{anchor}</a>{}", shape.replace('<', "&lt;")),
        _ => line,
    }
}
