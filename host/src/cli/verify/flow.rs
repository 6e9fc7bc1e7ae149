//! `dossier verify --input`: what ever came in against what ever came out, where nobody has a list of what was sent.
//!
//! It compares numbers, not alerts: an entry that was let go of is deleted from its stream, and a stream remembers how many there were,
//! not which.

use std::io::Write;

use anyhow::Context as _;

use crate::cli::output::Out;
use crate::queue::{Flow, Queue};

/// Compares; says whether it adds up.
///
/// # Errors
/// The queue does not count, cannot be asked, or the output cannot be written.
pub(super) async fn compare<W: Write>(queue: &dyn Queue, as_json: bool, out: &mut Out<W>) -> anyhow::Result<bool> {
    let flow = queue.flow().await?;
    let flow = flow.context("a directory does not count what came in; say what was sent with --ids or --alerts")?;
    let unexplained = unexplained(&flow);
    let Flow { added, waiting, stored, dead, duplicates, kept } = flow;
    if as_json {
        let json = serde_json::json!({
            "accounted": unexplained == 0, "added": added, "waiting": waiting, "stored": stored, "dead": dead,
            "duplicates": duplicates, "kept": kept, "unexplained": unexplained,
        });
        writeln!(out, "{json}")?;
        return Ok(unexplained == 0);
    }
    writeln!(out, "added        {added}  ever, with what was replayed or sent to be enriched anew")?;
    writeln!(out, "stored       {stored}")?;
    writeln!(out, "dead         {dead}")?;
    writeln!(out, "duplicates   {duplicates}")?;
    if kept > 0 {
        writeln!(out, "kept         {kept}  to be enriched anew and failed: their records are as they were")?;
    }
    writeln!(out, "waiting      {waiting}")?;
    let why = match unexplained {
        0 => "",
        1.. => "  left the stream otherwise: trimmed, or deleted by hand",
        _ => "  more came out than in: the stream was deleted and counts anew since",
    };
    writeln!(out, "unexplained  {unexplained}{why}")?;
    if unexplained == 0 {
        writeln!(out, "everything is accounted for")?;
    }
    Ok(unexplained == 0)
}

/// How many came in and are neither there nor came out.
fn unexplained(flow: &Flow) -> i64 {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let Flow { added, waiting, stored, dead, duplicates, kept } = *flow;
    signed(added) - signed(waiting) - signed(stored) - signed(dead) - signed(duplicates) - signed(kept)
}
