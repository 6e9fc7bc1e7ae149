//! Looks at everything that no single alert can notice: that nothing moves, that the oldest waits too long, that dead letters or the
//! store grow, that a source went silent. Raises and clears the alarms, and shows how full the queue is.
//!
//! It sees what the queue tells ([`Sample`]) and when; so its decisions run in tests without a queue and without waiting.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::sources::{Round, Watch, round_of};
use crate::config::AlarmsConfig;
use crate::queue::{Depth, QueueError, Room};
use crate::telemetry::Telemetry;
use crate::telemetry::alarms::Kind;
use crate::telemetry::events::DeadLettersMany;

/// How often the queue is looked at, where no threshold is shorter than that.
const INTERVAL: Duration = Duration::from_secs(2);

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(100);

/// How often the store's room is asked for.
const ROOM_INTERVAL: Duration = Duration::from_secs(30);

/// How long there is said to be a crowd after the last time there was.
const CROWD: Duration = Duration::from_secs(600);

/// What one look saw.
struct Sample {
    depth: Depth,
    /// How many alerts this host has finished.
    finished: u64,
    /// How many this host has in its hands and may go on with.
    own: usize,
}

/// Looks until the host stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let config = &shared.config.alarms;
    let mut lookout = Lookout::new(config, shared.config.queue.dlq_alarm, Instant::now());
    let mut watch = Watch::new(config, Instant::now());
    let round = round_of(config.silence.unwrap_or_default());
    let thresholds = [config.silence, config.stalled, config.oldest, Some(config.keep)];
    let shortest = thresholds.into_iter().flatten().min().unwrap_or(INTERVAL);
    let mut ticks = tokio::time::interval((shortest / 4).clamp(SHORTEST, INTERVAL));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut room_at, mut round_at) = (Instant::now(), Instant::now() + round);
    let mut sharing_failed = false;
    while shared.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // Whoever reads or commits meets the same error and tells of it.
        let depth = shared.queue.depth().await.ok();
        let now = Instant::now();
        if let Some(depth) = &depth {
            shared.telemetry.depth(depth);
            let free = shared.slots.available_permits();
            let held = shared.config.host.in_flight.saturating_sub(free);
            let own = held.saturating_sub(shared.refused.load(Ordering::Relaxed));
            let finished = shared.finished.load(Ordering::Relaxed);
            lookout.look(now, &Sample { depth: depth.clone(), finished, own }, &shared.telemetry);
        }
        if now >= room_at {
            room_at = now + ROOM_INTERVAL;
            lookout.room(&shared.queue.room().await, &shared.telemetry);
        }
        if let Some(watch) = &mut watch
            && now >= round_at
        {
            round_at = now + round;
            // Behind is who has no room for what waits.
            let behind = |depth: &Depth| depth.waiting > 0 && shared.slots.available_permits() == 0;
            let listening =
                shared.reading.load(Ordering::Relaxed) && depth.as_ref().is_some_and(|depth| !behind(depth));
            let (heard, crowded) = watch.listen(&shared.sources, now, listening);
            let all = match shared.queue.hear(&heard, config.forget).await {
                Ok(all) => {
                    sharing_failed = false;
                    all
                }
                Err(error) => {
                    if !std::mem::replace(&mut sharing_failed, true) {
                        tracing::warn!(target: "dossier::alarm", %error, "which sources were heard is not shared with other hosts");
                    }
                    Vec::new()
                }
            };
            let round = watch.round(&shared.sources, now, &all, crowded);
            lookout.sources(now, &round, &shared.telemetry);
        }
        shared.telemetry.forget_quiet(config.keep);
    }
}

/// What was seen so far.
struct Lookout<'a> {
    config: &'a AlarmsConfig,
    threshold: u64,
    /// Whether there are many dead letters.
    many: bool,
    finished: u64,
    /// When something moved last, or nothing had to.
    moved: Instant,
    dead: Option<u64>,
    /// How many dead letters came when, where some did.
    growth: VecDeque<(Instant, u64)>,
    crowded: Option<Instant>,
}

impl<'a> Lookout<'a> {
    fn new(config: &'a AlarmsConfig, threshold: u64, now: Instant) -> Self {
        Self {
            config,
            threshold,
            many: false,
            finished: 0,
            moved: now,
            dead: None,
            growth: VecDeque::new(),
            crowded: None,
        }
    }

    fn look(&mut self, now: Instant, sample: &Sample, telemetry: &Telemetry) {
        let Sample { depth, finished, own } = sample;
        if self.finished != *finished || (depth.waiting == 0 && *own == 0) {
            (self.finished, self.moved) = (*finished, now);
        }
        let still = now.duration_since(self.moved);
        let stalled = self.config.stalled.filter(|stalled| still > *stalled).map(|_| {
            format!("{} wait, {own} are in flight here, and none was finished for {}", depth.waiting, in_words(still))
        });
        telemetry.hold(Kind::QueueStalled, "", stalled.as_deref());

        let late = self.config.oldest.zip(depth.oldest).filter(|(bound, oldest)| oldest > bound);
        let late = late.map(|(_, oldest)| format!("the oldest has been in the queue for {}", in_words(oldest)));
        telemetry.hold(Kind::QueueLate, "", late.as_deref());

        let (dead, threshold) = (depth.dead, self.threshold);
        if self.many != (dead >= threshold) {
            self.many = !self.many;
            telemetry.emit(&DeadLettersMany { dead, threshold });
        } else if self.many {
            telemetry.raise(Kind::DeadLetters, "", &DeadLettersMany { dead, threshold }.detail());
        }
        self.grow(now, dead, telemetry);
    }

    fn grow(&mut self, now: Instant, dead: u64, telemetry: &Telemetry) {
        let came = self.dead.replace(dead).map_or(0, |before| dead.saturating_sub(before));
        let Some((count, per)) = self.config.dead_letters else { return };
        if came > 0 {
            // A rate of months would keep a note for each look: those that came close together are one.
            match self.growth.back_mut() {
                Some((then, sum)) if now.duration_since(*then) < per / 100 => *sum += came,
                _ => self.growth.push_back((now, came)),
            }
        }
        while self.growth.front().is_some_and(|(then, _)| now.duration_since(*then) >= per) {
            self.growth.pop_front();
        }
        let sum: u64 = self.growth.iter().map(|(_, came)| came).sum();
        let grows = (sum > u64::from(count.get()))
            .then(|| format!("{sum} in the last {}; see dossier dlq list", in_words(per)));
        telemetry.hold(Kind::DeadLettersGrow, "", grows.as_deref());
    }

    fn room(&self, room: &Result<Option<Room>, QueueError>, telemetry: &Telemetry) {
        // Who cannot tell is not full.
        let Ok(room) = room else { return };
        #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let share = room.as_ref().map_or(0.0, |room| room.used as f64 / room.total.max(1) as f64);
        let full = room.as_ref().filter(|_| share >= self.config.store).map(|room| {
            let size = |bytes| bytesize::ByteSize(bytes).display().iec();
            let (used, total) = (size(room.used), size(room.total));
            format!("{}: {used} of {total} are used, {:.0} %", room.place, share * 100.0)
        });
        telemetry.hold(Kind::StoreFull, "", full.as_deref());
    }

    fn sources(&mut self, now: Instant, round: &Round, telemetry: &Telemetry) {
        telemetry.sources(round.watched);
        for (name, silence) in &round.silent {
            telemetry.raise(Kind::SourceSilent, name, &format!("nothing for {}", in_words(*silence)));
        }
        let silent: HashSet<&str> = round.silent.iter().map(|(name, _)| &**name).collect();
        for held in telemetry.alarms().subjects(Kind::SourceSilent) {
            if !silent.contains(held.as_str()) {
                telemetry.clear(Kind::SourceSilent, &held);
            }
        }
        if round.crowded {
            self.crowded = Some(now);
        }
        let crowded = self.crowded.is_some_and(|then| now.duration_since(then) < CROWD);
        let detail = crowded.then(|| format!("{} are watched, others are not", round.watched));
        telemetry.hold(Kind::SourcesMany, "", detail.as_deref());
    }
}

/// A time for people, to the second.
fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests;
