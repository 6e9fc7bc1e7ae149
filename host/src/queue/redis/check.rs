//! What `dossier validate` and `dossier doctor` ask the server. Changes nothing.

mod server;

use std::time::Duration;

use redis::{Cmd, Value};

use super::keys::Keys;
use super::link::Link;
use super::reply;
use crate::checkup::{NO_HOST, Observation};
use crate::config::RedisConfig;

/// What to do about a server that cannot be asked anything.
const UNREACHED: &str = "see that redis-server runs there and lets this machine in (redis-cli -u URL ping), or mend url in [queue]; hosts wait \
    until it is there, and go on by themselves";

/// Looks at the server and at the keys of the queue.
pub(super) async fn check(config: &RedisConfig, dlq_alarm: u64) -> Vec<Observation> {
    let link = match Link::new(config, Duration::from_secs(5)) {
        Ok(link) => link,
        Err(error) => {
            return vec![Observation::broken_as_told(&error.to_string(), "mend url in [queue], and the files of TLS")];
        }
    };
    let info = match link.query(&redis::cmd("INFO")).await {
        Ok(info) => reply::text(info).unwrap_or_default(),
        Err(error) => return vec![Observation::broken_as_told(&link.error(&error).to_string(), UNREACHED)],
    };
    let mut seen = server::look(&info, &config.stream, link.place(), snapshots(&link).await);
    if info.contains("cluster_enabled:1") && !link.is_cluster() {
        seen.push(Observation::broken(
            format!("redis at {} is a node of a Cluster, which may give the stream to another node", link.place()),
            "name some of its nodes, url = \"redis+cluster://host:port,host:port\"",
        ));
    }
    seen.extend(settings(&link, &info).await);
    seen.extend(clock(&link).await);
    let keys = Keys::new(&config.stream);
    let others = [(&keys.accused, "hash"), (&keys.ledger, "hash"), (&keys.again, "hash"), (&keys.sources, "zset")];
    for (key, kind) in [&keys.stream, &keys.store, &keys.dead].map(|key| (key, "stream")).into_iter().chain(others) {
        match ask(&link, redis::cmd("TYPE").arg(key)).await.map(|value| reply::text(value).unwrap_or_default()) {
            Ok(found) if found == "none" || found == kind => {}
            Ok(found) => seen.push(Observation::broken(
                format!("the key {key} is a {found}, but must be a {kind}"),
                "rename it, or choose another stream in [queue]",
            )),
            Err(problem) => seen.push(Observation::broken_as_told(
                &problem,
                "docs/reliability.md names what the user of url in [queue] must be allowed",
            )),
        }
    }
    seen.extend(streams(&link, &keys, config, dlq_alarm).await);
    seen
}

/// What only CONFIG GET tells: INFO does not say how often the file is flushed.
async fn settings(link: &Link, info: &str) -> Option<Observation> {
    let answer = link.query(redis::cmd("CONFIG").arg("GET").arg("appendfsync")).await;
    let Ok(answer) = answer else {
        return Some(Observation::note(
            format!(
                "this user may not ask redis at {} for its settings (CONFIG GET), so appendfsync is not known",
                link.place()
            ),
            "look at it yourself: `always` loses nothing, `everysec` the last second, `no` whatever the kernel had not written; or allow \
             +config|get",
        ));
    };
    let value = reply::texts(answer).and_then(|words| words.into_iter().nth(1))?;
    server::has_aof(info).then(|| server::flushing(&value, link.place()))
}

/// Whether the server writes snapshots by itself; none where it may not be asked.
async fn snapshots(link: &Link) -> Option<bool> {
    let answer = link.query(redis::cmd("CONFIG").arg("GET").arg("save")).await.ok()?;
    let value = reply::texts(answer)?.into_iter().nth(1)?;
    Some(!value.trim().is_empty())
}

/// Whether the server's clock is this machine's.
async fn clock(link: &Link) -> Option<Observation> {
    let before = jiff::Timestamp::now();
    let answer = link.query(&redis::cmd("TIME")).await.ok()?;
    let after = jiff::Timestamp::now();
    let theirs = reply::texts(answer)?.first()?.parse::<i64>().ok()?;
    // The server tells whole seconds; somewhere between the two moments it was asked.
    let off = (theirs + 1).saturating_sub(before.as_second()).min(0) + theirs.saturating_sub(after.as_second()).max(0);
    Some(server::clock(off, link.place()))
}

/// What lies in the streams, and who else reads them.
async fn streams(link: &Link, keys: &Keys, config: &RedisConfig, dlq_alarm: u64) -> Vec<Observation> {
    let mut seen = Vec::new();
    // What cannot be counted is of a wrong type, or may not be asked for, and that is told already.
    let length = async |key: &str| ask(link, redis::cmd("XLEN").arg(key)).await.ok().and_then(reply::number);
    let waiting = length(&keys.stream).await.unwrap_or(0);
    if let Some(stored) = length(&keys.store).await {
        let stream = &config.stream;
        seen.push(Observation::fine(format!(
            "the stream {stream} holds {waiting} alerts; {stored} records are stored"
        )));
    }
    seen.extend(length(&keys.dead).await.map(|dead| match dead {
        0 => Observation::fine("no dead letters"),
        dead if dead >= dlq_alarm => Observation::risk(
            format!("{dead} dead letters: as many as dlq_alarm in [queue] says, or more, and nothing trims them"),
            "see `dossier dlq list`; mend the cause, then `dossier dlq replay`",
        ),
        dead => Observation::note(format!("{dead} dead letters"), "see `dossier dlq list`"),
    }));
    // A stream that is not there has no groups; that is fine.
    let Ok(groups) = ask(link, redis::cmd("XINFO").arg("GROUPS").arg(&config.stream)).await else { return seen };
    let names: Vec<_> =
        reply::list(groups).unwrap_or_default().into_iter().filter_map(|group| name(group, "name")).collect();
    for other in names.iter().filter(|name| **name != config.group) {
        seen.push(Observation::broken(
            format!(
                "the stream {} has another consumer group, \"{other}\": it would lose every alert that dossier finishes",
                config.stream
            ),
            format!("remove it with XGROUP DESTROY {} {other}, or give it a stream of its own", config.stream),
        ));
    }
    if names.contains(&config.group) {
        seen.extend(hosts(link, keys, config, waiting).await);
    }
    seen
}

/// Which hosts take part in the group.
async fn hosts(link: &Link, keys: &Keys, config: &RedisConfig, waiting: u64) -> Option<Observation> {
    let mut command = redis::cmd("XINFO");
    command.arg("CONSUMERS").arg(&config.stream).arg(&config.group);
    let consumers = reply::list(ask(link, &command).await.ok()?)?;
    let mut alive = 0;
    let mut left = 0;
    for consumer in consumers {
        let pending = name(consumer.clone(), "pending").and_then(|pending| pending.parse::<u64>().ok()).unwrap_or(0);
        let lease = keys.lease(&name(consumer, "name")?);
        match ask(link, redis::cmd("EXISTS").arg(lease)).await.ok().and_then(reply::number) {
            Some(1) => alive += 1,
            _ => left += pending,
        }
    }
    let hosts = |verb| if alive == 1 { format!("1 host {verb}s") } else { format!("{alive} hosts {verb}") };
    Some(match (alive, left) {
        (0, 0) if waiting == 0 => Observation::note(NO_HOST, "dossier run starts one"),
        (0, left) => Observation::risk(
            format!(
                "no host takes alerts from the stream, and {waiting} are there, {left} of them begun by hosts that are gone"
            ),
            "start one: dossier run",
        ),
        (_, 0) => Observation::fine(format!("{} alerts from the stream", hosts("take"))),
        (_, left) => Observation::note(
            format!("{} alerts from the stream; {left} alerts were begun by hosts that are gone", hosts("take")),
            "they are taken over within seconds; if not, look at the log for \"suspect\"",
        ),
    })
}

/// A field of what XINFO tells, whose answer is a flat list of names and values.
fn name(told: Value, wanted: &str) -> Option<String> {
    let mut fields = reply::list(told)?.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if reply::text(name).as_deref() == Some(wanted) {
            return match value {
                Value::Int(number) => Some(number.to_string()),
                value => reply::text(value),
            };
        }
    }
    None
}

async fn ask(link: &Link, command: &Cmd) -> Result<Value, String> {
    link.query(command).await.map_err(|error| link.error(&error).to_string())
}
