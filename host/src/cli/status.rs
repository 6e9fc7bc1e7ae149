//! `dossier status`: how full everything is, and what the host on this machine has to say.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use crate::admin::{AskError, Client, Ready};
use crate::config::{Config, QueueKind};
use crate::queue::{Depth, Queue};
use crate::telemetry::alarms::{Kind, Severity};

use super::FAILED;
use super::output::{Out, count, duration, place, printable, without_secrets};

/// How to show it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dossier status
  dossier status --json | jq .waiting
  dossier status --ready               For probes: ends with 1 unless the host here takes alerts
  watch dossier status                 Look again every two seconds")]
pub struct Arguments {
    /// One JSON object, for scripts
    #[arg(long)]
    json: bool,
    /// End with 1 unless a host on this machine is ready
    #[arg(long)]
    ready: bool,
}

/// Shows it.
///
/// # Errors
/// The queue cannot be asked, or the output cannot be written.
pub async fn status<W: Write>(
    queue: &dyn Queue,
    config: &Config,
    arguments: &Arguments,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let depth = queue.depth().await?;
    // Where any free port will do, nobody knows which one it became.
    let address = config.admin.address.filter(|address| address.port() != 0);
    let host = match address {
        Some(address) => match Client::of(address, config.admin.token.clone()) {
            Ok(client) => Some(client.ready().await),
            Err(error) => Some(Err(error)),
        },
        None => None,
    };
    let kind = &config.queue.kind;
    let ready = matches!(&host, Some(Ok(host)) if host.ready);
    let code = if arguments.ready && !ready { ExitCode::from(FAILED) } else { ExitCode::SUCCESS };
    if arguments.json {
        writeln!(out, "{}", json(kind, &depth, host.as_ref().and_then(|host| host.as_ref().ok())))?;
        return Ok(code);
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
    match (address, host) {
        (_, Some(Ok(Ready { ready, problems, notices, alarms }))) => {
            writeln!(out, "host       {}", if ready { "ready" } else { "not ready" })?;
            let more = alarms.saturating_sub(notices.len() as u64);
            for (part, what) in problems.iter().chain(&folded(notices)) {
                writeln!(out, "           {}: {}", printable(part), printable(what))?;
            }
            if more > 0 {
                writeln!(out, "           and {} more", count(more, "alarm"))?;
            }
        }
        (Some(address), Some(Err(AskError::NoAnswer { .. }))) => {
            writeln!(out, "host       none answers at {address}")?;
        }
        (_, Some(Err(error))) => writeln!(out, "host       {}", printable(&error.to_string()))?,
        (_, None) => {}
    }
    Ok(code)
}

/// What a host says, with one line for all of a kind that is only worth knowing.
fn folded(notices: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut folded = BTreeMap::new();
    let mut subjects: BTreeMap<Kind, Vec<String>> = BTreeMap::new();
    for (name, what) in notices {
        let (alarm, subject) = name.split_once(' ').unwrap_or((&name, ""));
        match Kind::of(alarm).filter(|kind| kind.severity() == Severity::Info) {
            Some(kind) => subjects.entry(kind).or_default().push(subject.to_owned()),
            None => _ = folded.insert(name, what),
        }
    }
    folded.extend(subjects.into_iter().map(|(kind, subjects)| (kind.name().to_owned(), subjects.join(", "))));
    folded
}

fn json(kind: &QueueKind, depth: &Depth, host: Option<&Ready>) -> serde_json::Value {
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
        "host": host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::memory::MemoryQueue;

    #[test]
    fn what_is_only_worth_knowing_takes_one_line_for_each_kind() {
        let notice = |name: &str| (name.to_owned(), "x".to_owned());
        let notices =
            ["plugin-on-probation asset", "plugin-on-probation geo", "table-stale a", "table-stale b", "unheard of"];
        let folded = folded(notices.map(notice).into());
        let lines: Vec<_> = folded.iter().map(|(name, what)| format!("{name}: {what}")).collect();
        assert_eq!(lines, ["plugin-on-probation: asset, geo", "table-stale a: x", "table-stale b: x", "unheard of: x"]);
    }

    #[tokio::test]
    async fn both_forms_say_the_same() {
        let queue = MemoryQueue::default();
        queue.bury("1-0", Some("a"), crate::dead_letter::Reason::Trap, "geo", b"{}");
        let config = |address: &str| {
            let text = format!("[admin]\naddress = \"{address}\"");
            Config::parse(std::path::Path::new("dossier.toml"), &text).unwrap()
        };
        let shown = async |json, address: &str| {
            let mut out = Vec::new();
            let mut writer = Out::new(&mut out);
            status(&queue, &config(address), &Arguments { json, ready: false }, &mut writer).await.unwrap();
            drop(writer);
            String::from_utf8(out).unwrap()
        };
        assert!(shown(false, "off").await.ends_with("dead       1  (why: dossier dlq list)\n"));
        let json: serde_json::Value = serde_json::from_str(&shown(true, "off").await).unwrap();
        assert_eq!((&json["dead"], &json["oldest_seconds"]), (&1.into(), &serde_json::Value::Null));
        assert_eq!((&json["queue"]["path"], &json["host"]), (&"queue".into(), &serde_json::Value::Null));

        let listener = crate::admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let health = std::sync::Arc::new(crate::admin::Health::default());
        let telemetry = std::sync::Arc::new(crate::telemetry::Telemetry::default());
        telemetry.raise(crate::telemetry::alarms::Kind::PluginTakenOut, "geo", "it \u{1b}[2J failed");
        let stop = tokio_util::sync::CancellationToken::new();
        let admin = crate::admin::Admin { telemetry, health, ..Default::default() };
        let host = tokio::spawn(crate::admin::serve(listener, admin, stop.clone()));
        let text = shown(false, &address).await;
        assert!(text.ends_with("host       ready\n           plugin-taken-out geo: it \\u{1b}[2J failed\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&shown(true, &address).await).unwrap();
        assert_eq!(json["host"]["ready"], true);
        let probe = async |address: &str| {
            let arguments = Arguments { json: false, ready: true };
            let code = status(&queue, &config(address), &arguments, &mut Out::new(Vec::new())).await.unwrap();
            format!("{code:?}")
        };
        assert_eq!(probe(&address).await, format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(probe("off").await, format!("{:?}", ExitCode::from(FAILED)));
        stop.cancel();
        host.await.unwrap();
        assert!(shown(false, &address).await.ends_with(&format!("host       none answers at {address}\n")));
    }
}
