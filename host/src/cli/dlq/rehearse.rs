//! `dossier dlq replay --with`: runs dead letters through the pipeline with a new version of a plugin, says which would pass now and,
//! unless it is only to say so, puts those back into the queue.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use futures_util::StreamExt as _;

use crate::cli::output::{Out, complain, printable, remark};
use crate::cli::plugin::trying::Subject;
use crate::cli::{FAILED, INTERRUPTED, interrupted};
use crate::config::Config;
use crate::dead_letter::Reason;
use crate::digest::sha256_hex;
use crate::plugin::rehearsal::{Rehearsal, WouldFail};
use crate::queue::{Queue, QueueError};

use super::change::{Pace, Target};

/// How many run at the same time, at most. An alert that waits for a retry holds up no more than itself.
const AT_ONCE: usize = 16;

/// How it is done.
pub(super) struct Manner {
    /// Whether those that pass are put back into the queue.
    pub moves: bool,
    /// How fast.
    pub pace: Pace,
    /// For scripts.
    pub json: bool,
}

/// How a dead letter fares.
enum Fate {
    Passes,
    Fails(WouldFail),
    Gone,
}

/// Runs them, in their order.
///
/// # Errors
/// The component cannot take its plugin's place, or the output cannot be written.
pub(super) async fn rehearse<W: Write>(
    queue: &dyn Queue,
    config: &Config,
    component: &Path,
    targets: Vec<Target>,
    manner: &Manner,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let subject = Subject::read(component)?;
    let plugin = subject.stem();
    if manner.moves {
        remind(config, &plugin, &subject.sha256);
    }
    let shown = printable(&subject.path.display().to_string());
    let rehearsal = Rehearsal::open(config, &plugin, subject.bytes).await;
    let rehearsal = rehearsal.with_context(|| format!("the dead letters cannot be run with {shown}"))?;
    let (mut passed, mut failed, mut gone) = (0_u64, 0_u64, 0_u64);
    let mut code = ExitCode::SUCCESS;
    let mut interrupt = std::pin::pin!(interrupted());
    let mut fates = futures_util::stream::iter(&targets)
        .map(async |target| (target, fate(queue, &rehearsal, target).await))
        .buffered(AT_ONCE);
    loop {
        let next = tokio::select! {
            biased;
            () = &mut interrupt => {
                code = ExitCode::from(INTERRUPTED);
                break;
            }
            next = fates.next() => next,
        };
        let Some((target, fate)) = next else { break };
        let moved = match fate {
            Ok(Fate::Passes) if manner.moves => {
                tokio::select! {
                    biased;
                    () = &mut interrupt => {
                        code = ExitCode::from(INTERRUPTED);
                        break;
                    }
                    () = manner.pace.turn() => {}
                }
                let moved = queue.replay(&target.key).await;
                moved.map(|moved| if moved { Fate::Passes } else { Fate::Gone })
            }
            fate => fate,
        };
        match moved {
            Ok(fate) => {
                *match fate {
                    Fate::Passes => &mut passed,
                    Fate::Fails(_) => &mut failed,
                    Fate::Gone => &mut gone,
                } += 1;
                tell(target, &fate, manner, out)?;
            }
            Err(error) => {
                complain(&format!("dead letter \"{}\": {error}", target.key));
                code = ExitCode::from(FAILED);
                break;
            }
        }
    }
    let left = targets.len() as u64 - passed - failed - gone;
    if left > 0 {
        complain(&format!("{left} were not looked at; the same command again goes on"));
    }
    if !manner.json {
        let gone = if gone > 0 { format!(", gone already {gone}") } else { String::new() };
        let (did, stay) = if manner.moves { ("replayed", "and stay") } else { ("would pass", "again") };
        writeln!(out, "{did} {passed}, would fail {stay} {failed}{gone}")?;
    }
    Ok(code)
}

/// Reminds somebody that a host runs what lies in its folder.
fn remind(config: &Config, plugin: &str, sha256: &str) {
    let place = config.plugins.dir.join(format!("{plugin}.wasm"));
    let same = std::fs::read(&place).is_ok_and(|bytes| sha256_hex(&bytes) == sha256);
    if !same {
        remark(&format!(
            "{} is another file: until this one lies there, a host runs what is replayed with the old one",
            printable(&place.display().to_string())
        ));
    }
}

async fn fate(queue: &dyn Queue, rehearsal: &Rehearsal, target: &Target) -> Result<Fate, QueueError> {
    if target.reason == Reason::NoAlert {
        let detail = "the entry held no alert".to_owned();
        return Ok(Fate::Fails(WouldFail { reason: Reason::NoAlert, detail, step: None }));
    }
    let Some(body) = queue.dead_body(&target.key).await? else { return Ok(Fate::Gone) };
    Ok(rehearsal.run(body).await.map_or(Fate::Passes, Fate::Fails))
}

fn tell<W: Write>(target: &Target, fate: &Fate, manner: &Manner, out: &mut Out<W>) -> std::io::Result<()> {
    let outcome = match (fate, manner.moves) {
        (Fate::Passes, false) => "would-pass",
        (Fate::Passes, true) => "replayed",
        (Fate::Fails(_), false) => "would-fail",
        (Fate::Fails(_), true) => "stays",
        (Fate::Gone, _) => "gone",
    };
    let Target { key, id, reason: was } = target;
    if manner.json {
        let mut line = serde_json::json!({ "key": key, "id": id, "outcome": outcome, "was": was });
        if let Fate::Fails(WouldFail { reason, detail, step }) = fate {
            line["reason"] = reason.as_str().into();
            line["step"] = step.clone().into();
            line["detail"] = detail.as_str().into();
        }
        writeln!(out, "{line}")?;
    } else {
        let id = id.as_deref().unwrap_or("-");
        let why = match fate {
            Fate::Passes | Fate::Gone => format!("it was {was}"),
            Fate::Fails(WouldFail { reason, detail, step }) => {
                let step = step.as_ref().map(|step| format!(" in {step}")).unwrap_or_default();
                format!("{reason}{step}: {detail}")
            }
        };
        let (key, id, why) = (printable(key), printable(id), printable(&why));
        writeln!(out, "{:<10}  {key}  {id}  {why}", outcome.replace('-', " "))?;
    }
    out.flush()
}
