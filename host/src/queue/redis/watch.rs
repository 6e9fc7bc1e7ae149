//! What alarms are made of and hosts must share: when which source was heard, and how much room the server has left.

use std::sync::LazyLock;
use std::time::Duration;

use super::keep::millis;
use super::link::{Call, Source};
use super::{Shared, reply};
use crate::queue::{Heard, QueueError, Room};
use crate::telemetry::alarms::SUBJECTS;

static HEAR: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("hear.lua")));

impl Shared {
    /// See [`crate::queue::Queue::hear`]. By the server's clock, which all hosts share.
    pub(super) async fn hear(&self, heard: &[String], forget: Duration) -> Result<Vec<Heard>, QueueError> {
        let mut call = Call::new(&HEAR, &[&self.keys.sources]).arg(SUBJECTS).arg(millis(forget));
        heard.iter().for_each(|source| call.push(source));
        let parse = |answer| {
            let [now, known] = reply::exactly(answer)?;
            let (now, known) = (reply::number(now)?, reply::texts(known)?);
            let heard = known.chunks_exact(2).map(|pair| {
                // A score is a float; as a text it may be written with an exponent.
                let then = pair[1].parse::<f64>().unwrap_or_default().max(0.0);
                #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in a float")]
                let ago = Duration::try_from_secs_f64((now as f64 - then).max(0.0) / 1e3).unwrap_or_default();
                Heard { source: pair[0].clone(), ago }
            });
            Some(heard.collect())
        };
        // On the connection for commands and not by `run`: whether this works must change nothing for alerts.
        let answer = self.commands.run(&call).await.map_err(|error| self.commands.error(&error))?;
        parse(answer).ok_or_else(|| self.commands.nonsense("hear.lua"))
    }

    /// See [`crate::queue::Queue::room`].
    pub(super) async fn room(&self) -> Result<Option<Room>, QueueError> {
        let command = redis::cmd("INFO").arg("memory").to_owned();
        let info = self.commands.query(&command).await.map_err(|error| self.commands.error(&error))?;
        let info = reply::text(info).unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().parse().ok()
        };
        // Without a bound of its own the machine's memory is one.
        let bound = |name| field(name).filter(|bound| *bound > 0);
        let total = bound("maxmemory").map(|total| (total, "maxmemory"));
        let total = total.or_else(|| Some((bound("total_system_memory")?, "the machine's memory")));
        Ok(field("used_memory").zip(total).map(|(used, (total, of))| Room {
            used,
            total,
            place: format!("redis at {}: {of}", self.commands.place()),
        }))
    }
}
