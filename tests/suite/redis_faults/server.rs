//! A server that dies, freezes, loads its file, or has no memory or disk.

use dossier_tests::happened::happened;

use super::*;

#[test]
fn a_server_that_is_killed_under_load_and_writes_always_loses_nothing_and_is_found_again() {
    let server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]).expect("redis-server starts");
    let site = site(&server.url(), "");
    let host = start(&site);
    let load = Load::on(&server);
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        stored_more(&server, 100);
        server.kill();
        server.mend();
        server.launch().expect("it starts again");
        slowest = slowest.max(stored_more(&server, 1));
    }
    let confirmed = load.end();
    drained(&server);
    assert_stored_once(&server, "alerts:enriched", &confirmed);
    until_ready(&host, true);
    assert!(metric(&host, "dossier_queue_recoveries_total") > 0.0);
    assert_eq!(length(&server, "alerts:dlq"), 0);
    happened(&format!(
        "killed 3 times; all {} confirmed alerts stored once; storing again after {} ms at most",
        confirmed.len(),
        slowest.as_millis()
    ));
}

#[test]
fn a_server_that_is_frozen_for_ten_seconds_under_load_loses_and_doubles_nothing() {
    let server = RedisServer::start().expect("redis-server starts");
    let site = site(&server.url(), "");
    let host = start(&site);
    let load = Load::on(&server);
    stored_more(&server, 100);
    server.freeze().expect("it runs");
    let began = Instant::now();
    let said = until_ready(&host, false);
    let noticed = began.elapsed();
    assert!(noticed < Duration::from_secs(9), "noticed after {noticed:?}: {said}");
    std::thread::sleep(Duration::from_secs(10).saturating_sub(began.elapsed()));
    server.thaw().expect("it runs");
    let again = stored_more(&server, 1);
    until_ready(&host, true);
    let confirmed = load.end();
    drained(&server);
    assert_stored_once(&server, "alerts:enriched", &confirmed);
    happened(&format!(
        "not ready after {} ms; storing again {} ms after the thaw; all {} confirmed alerts stored once",
        noticed.as_millis(),
        again.as_millis(),
        confirmed.len()
    ));
}

#[test]
fn while_a_server_loads_its_file_the_host_waits_and_is_not_ready_and_then_goes_on() {
    // Every command that is loaded takes a third of a millisecond.
    let server = RedisServer::with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--key-load-delay",
        "300",
        "--loading-process-events-interval-bytes",
        "1024",
    ])
    .expect("redis-server starts");
    let site = site(&server.url(), "");
    let host = start(&site);
    let before = ids("before", 1000);
    send(&server, before.clone());
    drained(&server);
    server.kill();
    let began = Instant::now();
    server.launch_without_waiting().expect("it starts again");
    let problem = wait_for("the host to say that the server is loading", || {
        let (status, body) = host.get("/readyz");
        (status == 503 && body.contains("LOADING")).then_some(body)
    });
    let loaded =
        wait_for("the server to have loaded", || server.ask::<u64>(&["XLEN", "alerts"]).ok().map(|_| began.elapsed()));
    until_ready(&host, true);
    let ready = began.elapsed();
    let after = ids("after", 50);
    send(&server, after.clone());
    drained(&server);
    assert_stored_once(&server, "alerts:enriched", &[before, after].concat());
    assert!(problem.contains("LOADING"), "{problem}");
    happened(&format!(
        "loading took {} ms; not ready meanwhile, ready {} ms after it; 1,050 alerts stored once",
        loaded.as_millis(),
        ready.saturating_sub(loaded).as_millis()
    ));
}

#[test]
fn a_server_without_memory_stops_the_reading_with_a_bounded_number_in_flight_until_there_is_some() {
    const IN_FLIGHT: u64 = 2000;
    let server = RedisServer::start().expect("redis-server starts");
    let site = site(&server.url(), "batch = 20\n[host]\nin_flight = 2000");
    let host = start(&site);
    let all = ids("a", 3000);
    // Otherwise all would be done before the memory is.
    host.signal(Signal::STOP);
    send(&server, all.clone());
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).expect("CONFIG SET");
    host.signal(Signal::CONT);
    let problem = until_ready(&host, false);
    assert!(problem.contains("OOM"), "{problem}");
    let refused = length(&server, "alerts:enriched");
    let (began, mut most, mut least) = (Instant::now(), 0, u64::MAX);
    while began.elapsed() < Duration::from_secs(3) {
        let now = pending(&server);
        (most, least) = (most.max(now), least.min(now));
        std::thread::sleep(Duration::from_millis(20));
    }
    // The server would go on handing out, and there is room for more: what is not read is the host's doing.
    assert!(most <= IN_FLIGHT / 2, "{most} pending");
    assert_eq!(most, least, "the host goes on reading while nothing can be stored");
    assert_eq!(length(&server, "alerts:enriched"), refused);
    assert_eq!(length(&server, "alerts") + refused, 3000);
    assert!(metric(&host, "dossier_alarms_total{alarm=\"queue-trouble\"}") >= 1.0);
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).expect("CONFIG SET");
    let began = Instant::now();
    drained(&server);
    until_ready(&host, true);
    assert_stored_once(&server, "alerts:enriched", &all);
    happened(&format!(
        "never more than {most} of 3,000 pending (in_flight = {IN_FLIGHT}), no read for 3 s; all stored once {} ms after there was memory",
        began.elapsed().as_millis()
    ));
}

#[test]
fn a_server_whose_disk_is_full_is_waited_for_and_nothing_is_lost() {
    let small = RedisServer::on_a_small_disk(&["--appendonly", "yes"]);
    // Where no file system can be mounted, the server refuses all writes for another reason.
    let (server, fills) = match small {
        Ok(server) => (server, true),
        Err(error) => {
            println!("no file system of our own can be mounted here: {error:#}");
            (RedisServer::start().expect("redis-server starts"), false)
        }
    };
    match fills {
        true => refuses_for_a_while(&server, "MISCONF", || (), || server.make_room().expect("there is a filler")),
        false => refuses_without_replicas(&server),
    }
}

#[test]
fn a_server_that_refuses_writes_without_replicas_is_waited_for_and_nothing_is_lost() {
    refuses_without_replicas(&RedisServer::start().expect("redis-server starts"));
}

fn refuses_without_replicas(server: &RedisServer) {
    let wanted = |replicas: &str| {
        server.ask::<()>(&["CONFIG", "SET", "min-replicas-to-write", replicas]).expect("CONFIG SET");
    };
    refuses_for_a_while(server, "NOREPLICAS", || wanted("1"), || wanted("0"));
}

/// A server that refuses writes with this word, from some moment on, until it is helped.
fn refuses_for_a_while(server: &RedisServer, word: &str, refuse: impl FnOnce(), help: impl FnOnce()) {
    let site = site(&server.url(), "");
    let host = start(&site);
    let url = server.url();
    let load = Load::begin(Producing { size: 4000, ..Producing::default() }, move || connect(&url));
    stored_more(server, 20);
    refuse();
    let problem = until_ready(&host, false);
    assert!(problem.contains(word), "{problem}");
    let confirmed = load.end();
    assert!(!confirmed.is_empty());
    let began = Instant::now();
    help();
    until_ready(&host, true);
    drained(server);
    assert_stored_once(server, "alerts:enriched", &confirmed);
    happened(&format!(
        "not ready with {word}; all {} confirmed alerts stored once {} ms after it was helped",
        confirmed.len(),
        began.elapsed().as_millis()
    ));
}
