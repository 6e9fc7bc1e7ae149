//! What `dossier validate` asks the server. Changes nothing.

use std::time::Duration;

use redis::{Cmd, Value};

use super::keys::Keys;
use super::link::Link;
use super::reply;
use crate::config::RedisConfig;

/// The oldest version that has all commands that are used.
const VERSION: (u32, u32) = (6, 2);

/// Looks at the server and at the keys of the queue; gives what is wrong, each with what to do.
pub(super) async fn check(config: &RedisConfig) -> Vec<String> {
    let link = match Link::new(config, Duration::from_secs(5)) {
        Ok(link) => link,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::new();
    let info = match link.query(&redis::cmd("INFO")).await {
        Ok(info) => reply::text(info).unwrap_or_default(),
        Err(error) => return vec![link.error(&error).to_string()],
    };
    server(&info, &config.stream, link.place(), &mut problems);
    if info.contains("cluster_enabled:1") && !link.is_cluster() {
        problems.push(format!(
            "redis at {} is a node of a Cluster, which may give the stream to another node; name some of its nodes, url = \
             \"redis+cluster://host:port,host:port\"",
            link.place()
        ));
    }
    let keys = Keys::new(&config.stream);
    let others = [(&keys.accused, "hash"), (&keys.ledger, "hash"), (&keys.sources, "zset")];
    for (key, kind) in [&keys.stream, &keys.store, &keys.dead].map(|key| (key, "stream")).into_iter().chain(others) {
        match ask(&link, redis::cmd("TYPE").arg(key)).await.map(|value| reply::text(value).unwrap_or_default()) {
            Ok(found) if found == "none" || found == kind => {}
            Ok(found) => problems.push(format!(
                "the key {key} is a {found}, but must be a {kind}: rename it, or choose another stream in [queue]"
            )),
            Err(problem) => problems.push(problem),
        }
    }
    // A stream that is not there has no groups; that is fine.
    if let Ok(groups) = ask(&link, redis::cmd("XINFO").arg("GROUPS").arg(&config.stream)).await {
        let names = reply::list(groups).unwrap_or_default().into_iter().filter_map(group_name);
        for other in names.filter(|name| *name != config.group) {
            problems.push(format!(
                "the stream {} has another consumer group, \"{other}\": it would lose every alert that dossier finishes; \
                 remove it with XGROUP DESTROY {} {other}, or give it a stream of its own",
                config.stream, config.stream
            ));
        }
    }
    problems
}

/// A group's name in XINFO GROUPS, whose answer is a flat list of names and values.
fn group_name(group: Value) -> Option<String> {
    let mut fields = reply::list(group)?.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if reply::text(name).as_deref() == Some("name") {
            return reply::text(value);
        }
    }
    None
}

async fn ask(link: &Link, command: &Cmd) -> Result<Value, String> {
    link.query(command).await.map_err(|error| link.error(&error).to_string())
}

/// What the server says of itself.
fn server(info: &str, stream: &str, place: &str, problems: &mut Vec<String>) {
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or("")
    };
    let version = field("redis_version");
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < VERSION {
        problems.push(format!("redis at {place} is {version}; dossier needs {}.{} or later", VERSION.0, VERSION.1));
    }
    if matches!(field("role"), "slave" | "replica") {
        problems.push(format!("redis at {place} is a replica; name the primary in url of [queue]"));
    }
    let policy = field("maxmemory_policy");
    if !matches!(policy, "noeviction" | "") && field("maxmemory") != "0" {
        problems.push(format!(
            "redis at {place} evicts keys when its memory is full (maxmemory-policy {policy}), alerts and records too; set \
             it to noeviction"
        ));
    }
    if field("cluster_enabled") == "1" && !(stream.contains('{') && stream.contains('}')) {
        problems.push(format!(
            "redis at {place} is a Cluster; give the stream a hash tag, stream = \"{{{stream}}}\", so that its keys stay \
             together"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(info: &str) -> Vec<String> {
        let mut problems = Vec::new();
        server(info, "alerts", "here", &mut problems);
        problems
    }

    #[test]
    fn a_server_that_would_lose_alerts_is_found_out() {
        let good = "redis_version:7.0.15\r\nrole:master\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:0\r\n";
        assert_eq!(problems(good), Vec::<String>::new());
        for (from, to, word) in [
            ("7.0.15", "6.0.16", "6.2"),
            ("role:master", "role:slave", "replica"),
            ("maxmemory:0\r\nmaxmemory_policy:noeviction", "maxmemory:9\r\nmaxmemory_policy:allkeys-lru", "noeviction"),
            ("cluster_enabled:0", "cluster_enabled:1", "hash tag"),
        ] {
            let found = problems(&good.replace(from, to));
            assert!(found.len() == 1 && found[0].contains(word), "{found:?}");
        }
    }
}
