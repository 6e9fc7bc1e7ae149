//! `dossier status`: how full everything is.

use std::io::Write;
use std::process::ExitCode;

use crate::config::QueueKind;
use crate::queue::{Depth, Queue};

use super::output::{Out, duration, place, without_secrets};

/// How to show it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier status
  dossier status --json | jq .waiting
  watch dossier status                 Look again every two seconds")]
pub struct Arguments {
    /// One JSON object, for scripts
    #[arg(long)]
    json: bool,
}

/// Shows it.
///
/// # Errors
/// The queue cannot be asked, or the output cannot be written.
pub async fn status<W: Write>(
    queue: &dyn Queue,
    kind: &QueueKind,
    arguments: &Arguments,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let depth = queue.depth().await?;
    if arguments.json {
        writeln!(out, "{}", json(kind, &depth))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Depth { waiting, in_flight, stored, dead, oldest } = depth;
    writeln!(out, "queue      {}", place(kind))?;
    writeln!(out, "waiting    {waiting}")?;
    writeln!(out, "in flight  {in_flight}")?;
    writeln!(out, "stored     {stored}")?;
    writeln!(out, "dead       {dead}{}", if dead > 0 { "  (why: dossier dlq list)" } else { "" })?;
    if let Some(oldest) = oldest {
        writeln!(out, "oldest     {}", duration(oldest))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn json(kind: &QueueKind, depth: &Depth) -> serde_json::Value {
    let queue = match kind {
        QueueKind::Directory { path } => serde_json::json!({ "kind": "directory", "path": path.display().to_string() }),
        QueueKind::Redis(redis) => serde_json::json!({
            "kind": "redis", "url": without_secrets(&redis.url), "stream": redis.stream, "group": redis.group,
        }),
    };
    serde_json::json!({
        "queue": queue,
        "waiting": depth.waiting,
        "in_flight": depth.in_flight,
        "stored": depth.stored,
        "dead": depth.dead,
        "oldest_seconds": depth.oldest.map(|oldest| oldest.as_millis() as f64 / 1_000.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::memory::MemoryQueue;

    #[tokio::test]
    async fn both_forms_say_the_same() {
        let queue = MemoryQueue::default();
        queue.bury("1-0", Some("a"), crate::dead_letter::Reason::Trap, "geo", b"{}");
        let kind = QueueKind::Directory { path: "queue".into() };
        let shown = async |json| {
            let mut out = Vec::new();
            let mut writer = Out::new(&mut out);
            status(&queue, &kind, &Arguments { json }, &mut writer).await.unwrap();
            drop(writer);
            String::from_utf8(out).unwrap()
        };
        assert!(shown(false).await.contains("dead       1  (why: dossier dlq list)\n"));
        let json: serde_json::Value = serde_json::from_str(&shown(true).await).unwrap();
        assert_eq!((&json["dead"], &json["oldest_seconds"]), (&1.into(), &serde_json::Value::Null));
        assert_eq!(json["queue"]["path"], "queue");
    }
}
