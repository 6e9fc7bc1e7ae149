//! A bad way to the server: connections that are reset, packets that vanish, another server at the end.

use dossier_tests::happened::happened;
use dossier_tests::proxy::Proxy;
use dossier_tests::redis_server::free_port;

use super::*;

#[test]
fn connections_that_are_reset_again_and_again_under_load_cost_nothing() {
    let server = RedisServer::start().expect("redis-server starts");
    let proxy = Proxy::to(&server.socket()).expect("a proxy");
    let site = site(&proxy.url(), "");
    let host = start(&site);
    let load = Load::on(&server);
    let mut resets = 0;
    for _ in 0..10 {
        stored_more(&server, 20);
        resets += proxy.reset();
    }
    let confirmed = load.end();
    drained(&server);
    until_ready(&host, true);
    assert_stored_once(&server, "alerts:enriched", &confirmed);
    assert!(resets >= 10 && proxy.made() > 10, "{resets} resets, {} connections", proxy.made());
    assert_eq!(length(&server, "alerts:dlq"), 0);
    happened(&format!("{resets} connections reset in 10 rounds; all {} confirmed alerts stored once", confirmed.len()));
}

#[test]
fn a_connection_whose_packets_vanish_is_made_again_within_ten_seconds() {
    let server = RedisServer::start().expect("redis-server starts");
    let proxy = Proxy::to(&server.socket()).expect("a proxy");
    let site = site(&proxy.url(), "");
    let host = start(&site);
    let load = Load::on(&server);
    stored_more(&server, 50);
    let before = proxy.made();
    proxy.swallow();
    // What was on its way already may still come in: some tens of alerts at most.
    let took = stored_more(&server, 300);
    let troubles: Vec<_> = host.log().into_iter().filter(|line| field(line, "operation").is_some()).collect();
    assert!(took < Duration::from_secs(10), "rebuilt after {took:?}: {troubles:#?}");
    assert!(proxy.made() > before);
    let confirmed = load.end();
    drained(&server);
    until_ready(&host, true);
    assert_stored_once(&server, "alerts:enriched", &confirmed);
    happened(&format!(
        "storing again {} ms after the packets began to vanish; all {} confirmed alerts stored once",
        took.as_millis(),
        confirmed.len()
    ));
}

/// A primary and its replica, in step.
fn pair() -> (RedisServer, RedisServer, String) {
    let (first, second) = (free_port().expect("a port").to_string(), free_port().expect("a port").to_string());
    let primary =
        RedisServer::with(&["--port", &first, "--repl-diskless-sync-delay", "0"]).expect("redis-server starts");
    let replica = RedisServer::with(&["--port", &second, "--replicaof", "127.0.0.1", &first]).expect("it starts");
    wait_for("the replica to be in step", || in_step(&primary, &replica));
    (primary, replica, second)
}

/// Whether a replica has all that its primary has.
fn in_step(primary: &RedisServer, replica: &RedisServer) -> Option<()> {
    let offset = |server: &RedisServer, name: &str| {
        let info: String = server.ask(&["INFO", "replication"]).ok()?;
        info.contains("role:master").then_some(()).or(info.contains("master_link_status:up").then_some(()))?;
        info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    (offset(primary, "master_repl_offset:")? == offset(replica, "slave_repl_offset:")?).then_some(())
}

#[test]
fn a_primary_that_becomes_a_replica_under_load_is_left_for_the_new_one() {
    let (primary, replica, port) = pair();
    let proxy = Proxy::to(&primary.socket()).expect("a proxy");
    let site = site(&proxy.url(), "");
    let host = start(&site);
    let url = proxy.url();
    let load = Load::begin(Producing::default(), move || connect(&url));
    stored_more(&primary, 100);
    // An address that moves, as in most failovers by hand; what is connected stays connected to the old one. A read that waits
    // there would be sent away with its connection: the host learns from READONLY alone.
    stop_between_reads(&primary, &host);
    proxy.lead_to(&replica.socket());
    primary.ask::<()>(&["FAILOVER", "TO", "127.0.0.1", &port]).expect("FAILOVER");
    wait_for("the replica to be the primary", || {
        let info: String = replica.ask(&["INFO", "replication"]).ok()?;
        info.contains("role:master").then_some(())
    });
    host.signal(Signal::CONT);
    let began = Instant::now();
    stored_more(&replica, 100);
    let took = began.elapsed();
    let confirmed = load.end();
    drained(&replica);
    until_ready(&host, true);
    assert_stored_once(&replica, "alerts:enriched", &confirmed);
    let troubles: Vec<_> = host.log().iter().filter_map(|line| Some(field(line, "error")?.to_string())).collect();
    assert!(troubles.iter().any(|trouble| trouble.contains("READONLY")), "{troubles:?}");
    happened(&format!(
        "READONLY; 100 alerts stored in the new primary after {} ms; all {} confirmed alerts stored once",
        took.as_millis(),
        confirmed.len()
    ));
}

#[test]
fn what_a_failover_loses_and_the_host_still_holds_is_stored_from_memory_and_counted() {
    let (primary, replica, _) = pair();
    let proxy = Proxy::to(&primary.socket()).expect("a proxy");
    let site = site(&proxy.url(), "");
    let host = start(&site);
    let before = ids("before", 50);
    send(&primary, before.clone());
    drained(&primary);
    wait_for("the replica to be in step", || in_step(&primary, &replica));
    // From here on the replica hears nothing more: the tail.
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]).expect("REPLICAOF");
    let tail = ids("tail", 8);
    held(&primary, &host, &tail);
    until_ready(&host, false);
    proxy.lead_to(&replica.socket());
    primary.kill();
    proxy.reset();
    until_ready(&host, true);
    assert_stored_once(&replica, "alerts:enriched", &[before, tail].concat());
    let rescued = metric(&host, "dossier_queue_rescued_alerts_total");
    assert_eq!(rescued, 8.0);
    line(&host, "entries gone from the queue, stored from memory");
    happened(&format!(
        "the tail of 8 was lost; the host held it and stored all of it in the new primary; counted {rescued}"
    ));
}
