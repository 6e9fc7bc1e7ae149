//! What a server says of itself, and what that means for alerts. Knows nothing of connections.

use std::time::Duration;

use bytesize::ByteSize;

use crate::checkup::{NEVER_SAVED, Observation};

/// The oldest version that has all commands that are used.
const VERSION: (u32, u32) = (6, 2);

/// From which share of its memory on, in percent, a server is nearly full.
const FULL: u64 = 85;

/// How many seconds two clocks may differ before it is worth a word, and before ages and times mean nothing.
const ODD: i64 = 2;
const WRONG: i64 = 60;

/// What INFO tells.
struct Info<'a>(&'a str);

impl<'a> Info<'a> {
    fn field(&self, name: &str) -> &'a str {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or("")
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.field(name).parse().ok()
    }
}

/// Whether the server writes an append-only file.
pub(super) fn has_aof(info: &str) -> bool {
    Info(info).field("aof_enabled") == "1"
}

/// What the server says of itself. `snapshots`: whether it writes some, where that is known.
pub(super) fn look(info: &str, stream: &str, place: &str, snapshots: Option<bool>) -> Vec<Observation> {
    let info = Info(info);
    let mut seen = vec![version(&info, place)];
    if matches!(info.field("role"), "slave" | "replica") {
        seen.push(Observation::broken(format!("redis at {place} is a replica"), "name the primary in url of [queue]"));
    }
    seen.extend(memory(&info, place));
    if info.field("cluster_enabled") == "1" && !(stream.contains('{') && stream.contains('}')) {
        seen.push(Observation::broken(
            format!("redis at {place} is a Cluster"),
            format!("give the stream a hash tag, stream = \"{{{stream}}}\", so that its keys stay together"),
        ));
    }
    seen.extend(persistence(&info, place, snapshots));
    seen.extend(replicas(&info, place));
    seen
}

fn version(info: &Info<'_>, place: &str) -> Observation {
    let version = info.field("redis_version");
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < VERSION {
        let (major, minor) = VERSION;
        return Observation::broken(
            format!("redis at {place} is {version}"),
            format!("dossier needs {major}.{minor} or later"),
        );
    }
    let up = info.number("uptime_in_seconds").map(|seconds| crate::checkup::rough(Duration::from_secs(seconds)));
    Observation::fine(format!("redis {version} at {place}, up {}", up.unwrap_or_else(|| "for a while".to_owned())))
}

fn memory(info: &Info<'_>, place: &str) -> Vec<Observation> {
    let mut seen = Vec::new();
    let policy = info.field("maxmemory_policy");
    let most = info.number("maxmemory").unwrap_or(0);
    if !matches!(policy, "noeviction" | "") {
        let next = "set it to noeviction: CONFIG SET maxmemory-policy noeviction, then CONFIG REWRITE";
        // Streams have no end of their own, so those policies spare them.
        let what = if policy.starts_with("volatile-") {
            "what has an end of its own: leases of hosts, and the index that keeps alerts from being stored twice"
        } else {
            "whole streams: alerts, records and dead letters"
        };
        seen.push(if most > 0 {
            Observation::broken(
                format!("redis at {place} evicts keys when its memory is full (maxmemory-policy {policy}): {what}"),
                next,
            )
        } else {
            Observation::note(
                format!("maxmemory-policy is {policy}: once maxmemory is set, which it is not, it would evict {what}"),
                next,
            )
        });
    }
    let used = info.number("used_memory").unwrap_or(0);
    let room = if most > 0 { most } else { info.number("total_system_memory").unwrap_or(0) };
    let Some(percent) = used.saturating_mul(100).checked_div(room) else { return seen };
    let size = |bytes| ByteSize::b(bytes).display().iec().to_string();
    let of = if most > 0 { "its maxmemory" } else { "its machine's memory" };
    let what = format!("redis uses {} of {of}, {}", size(used), size(room));
    seen.push(if percent >= FULL {
        Observation::risk(
            what,
            "bound the store with retention in [store], drop dead letters that nobody wants, or give it more memory: when it is full \
             producers are refused, and the host stops reading",
        )
    } else {
        Observation::fine(what)
    });
    seen
}

fn persistence(info: &Info<'_>, place: &str, snapshots: Option<bool>) -> Vec<Observation> {
    let mut seen = Vec::new();
    if info.field("loading") == "1" {
        seen.push(Observation::risk(
            format!("redis at {place} is loading its file"),
            "wait until it has; the host waits as well",
        ));
    }
    let failed = |name: &str| !matches!(info.field(name), "ok" | "");
    if has_aof(info.0) {
        if failed("aof_last_write_status") || failed("aof_last_bgrewrite_status") {
            seen.push(Observation::broken(
                format!("redis at {place} cannot write its append-only file"),
                "look at its log and its disk; until then it refuses writes, and nothing is stored",
            ));
        }
        return seen;
    }
    if snapshots == Some(false) {
        seen.push(Observation::broken(
            format!("redis at {place} has no append-only file (appendonly no) and writes no snapshots (save \"\"): {NEVER_SAVED}"),
            "CONFIG SET appendonly yes, then CONFIG REWRITE",
        ));
        return seen;
    }
    let changes = info.number("rdb_changes_since_last_save").unwrap_or(0);
    let saved = info.number("rdb_last_save_time").unwrap_or(0);
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    let ago = crate::checkup::rough(Duration::from_secs(now.saturating_sub(saved)));
    seen.push(Observation::risk(
        format!(
            "redis at {place} has no append-only file (appendonly no): when it ends it loses what came since its last snapshot, now {changes} \
             changes in {ago}, alerts that it confirmed among them"
        ),
        "CONFIG SET appendonly yes, then CONFIG REWRITE",
    ));
    if failed("rdb_last_bgsave_status") {
        seen.push(Observation::broken(
            format!("redis at {place} could not write its last snapshot"),
            "look at its log and its disk; with stop-writes-on-bgsave-error it refuses writes until it can",
        ));
    }
    seen
}

/// What `appendfsync` means.
pub(super) fn flushing(value: &str, place: &str) -> Observation {
    match value {
        "always" => Observation::fine("the append-only file is flushed with each write (appendfsync always)"),
        "everysec" => Observation::note(
            "the append-only file is flushed each second (appendfsync everysec): a loss of power takes up to the last two seconds",
            "CONFIG SET appendfsync always, if that is too much",
        ),
        other => Observation::risk(
            format!(
                "redis at {place} leaves it to the kernel when its append-only file is flushed (appendfsync {other}): a loss of power may take minutes"
            ),
            "CONFIG SET appendfsync everysec (or always), then CONFIG REWRITE",
        ),
    }
}

fn replicas(info: &Info<'_>, place: &str) -> Option<Observation> {
    if info.field("role") != "master" {
        return None;
    }
    let number = info.number("connected_slaves").unwrap_or(0);
    if number == 0 {
        return Some(Observation::note(
            format!("redis at {place} has no replica: with its disk everything is gone"),
            "add one, with Sentinels or as a Cluster, if that must not be",
        ));
    }
    let good = info.number("min_slaves_good_slaves");
    Some(match good {
        Some(0) => Observation::risk(
            format!("none of the {number} replicas of redis at {place} is near enough (min-replicas-max-lag)"),
            "look at their logs; with min-replicas-to-write writes are refused meanwhile",
        ),
        Some(good) => Observation::fine(format!(
            "writes need a replica (min-replicas-to-write), and {good} of {number} are near enough"
        )),
        None => Observation::note(
            format!(
                "redis at {place} has replicas ({number}) and writes without them too: cut off from them it goes on, and what it takes is lost at a failover"
            ),
            "CONFIG SET min-replicas-to-write 1, and min-replicas-max-lag 10",
        ),
    })
}

/// What it means that the server's clock is so many seconds ahead of this machine's.
pub(super) fn clock(off: i64, place: &str) -> Observation {
    let way = if off > 0 { "ahead of" } else { "behind" };
    let what = format!("the clock of redis at {place} is {} s {way} this machine's", off.unsigned_abs());
    let next = "keep both by NTP: ages, retention and leases go by the server's clock, times in records by the host's";
    match off.abs() {
        0..ODD => Observation::fine("the server's clock and this machine's agree"),
        ODD..WRONG => Observation::note(what, next),
        _ => Observation::risk(what, next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::Gravity;

    const GOOD: &str = "redis_version:7.0.15\r\nrole:master\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:0\r\n\
        aof_enabled:1\r\naof_last_write_status:ok\r\naof_last_bgrewrite_status:ok\r\nused_memory:10\r\ntotal_system_memory:100\r\n\
        connected_slaves:1\r\nmin_slaves_good_slaves:1\r\nuptime_in_seconds:90\r\n";

    fn found(info: &str, gravity: Gravity) -> Vec<String> {
        let seen = look(info, "alerts", "here", None);
        seen.into_iter().filter(|one| one.gravity == gravity).map(|one| one.line()).collect()
    }

    #[test]
    fn a_server_that_is_as_it_should_be_has_nothing_to_be_told() {
        let seen = look(GOOD, "alerts", "here", Some(false));
        assert!(seen.iter().all(|one| one.gravity == Gravity::Fine), "{seen:?}");
    }

    #[test]
    fn a_server_that_would_lose_alerts_is_found_out() {
        for (from, to, gravity, word) in [
            ("7.0.15", "6.0.16", Gravity::Broken, "6.2"),
            ("role:master", "role:slave", Gravity::Broken, "replica"),
            (
                "maxmemory:0\r\nmaxmemory_policy:noeviction",
                "maxmemory:99\r\nmaxmemory_policy:allkeys-lru",
                Gravity::Broken,
                "noeviction",
            ),
            ("maxmemory_policy:noeviction", "maxmemory_policy:allkeys-lru", Gravity::Note, "noeviction"),
            (
                "maxmemory:0\r\nmaxmemory_policy:noeviction",
                "maxmemory:99\r\nmaxmemory_policy:volatile-ttl",
                Gravity::Broken,
                "index",
            ),
            ("cluster_enabled:0", "cluster_enabled:1", Gravity::Broken, "hash tag"),
            ("aof_enabled:1", "aof_enabled:0", Gravity::Risk, "appendonly yes"),
            ("aof_last_write_status:ok", "aof_last_write_status:err", Gravity::Broken, "append-only"),
            ("used_memory:10", "used_memory:90", Gravity::Risk, "retention"),
            ("connected_slaves:1", "connected_slaves:0", Gravity::Note, "no replica"),
            ("good_slaves:1", "good_slaves:0", Gravity::Risk, "lag"),
        ] {
            let found = found(&GOOD.replace(from, to), gravity);
            assert!(found.len() == 1 && found[0].contains(word), "{to}: {found:?}");
            let is_volatile = to.contains("volatile");
            assert!(!is_volatile || !found[0].contains("records") && found[0].contains("CONFIG REWRITE"), "{found:?}");
        }
    }

    #[test]
    fn a_server_that_writes_nothing_to_disk_is_told_apart_from_one_with_snapshots() {
        let info = GOOD.replace("aof_enabled:1", "aof_enabled:0");
        for (snapshots, gravity) in [(None, Gravity::Risk), (Some(true), Gravity::Risk), (Some(false), Gravity::Broken)]
        {
            let seen = look(&info, "alerts", "here", snapshots);
            let problems: Vec<_> = seen.iter().filter(|one| one.gravity.is_problem()).collect();
            assert!(problems.len() == 1 && problems[0].gravity == gravity, "{problems:?}");
            assert_eq!(problems[0].what.ends_with(NEVER_SAVED), snapshots == Some(false), "{problems:?}");
        }
    }

    #[test]
    fn clocks_and_flushing_are_judged_by_what_they_cost() {
        let gravities = [0, 1, -3, 59, -61].map(|off| clock(off, "here").gravity);
        assert_eq!(gravities, [Gravity::Fine, Gravity::Fine, Gravity::Note, Gravity::Note, Gravity::Risk]);
        let gravities = ["always", "everysec", "no"].map(|value| flushing(value, "here").gravity);
        assert_eq!(gravities, [Gravity::Fine, Gravity::Note, Gravity::Risk]);
    }
}
