//! What others do to the keys of a queue: delete, trim, forget, put something else there, read under the host's name.

use dossier_tests::happened::happened;
use serde_json::json;

use super::*;

#[test]
fn a_group_or_a_stream_that_is_deleted_under_load_is_made_again_at_the_beginning_with_an_alarm() {
    let server = RedisServer::start().expect("redis-server starts");
    let site = site(&server.url(), "");
    let host = start(&site);
    let load = Load::on(&server);
    for _ in 0..3 {
        stored_more(&server, 50);
        server.ask::<u64>(&["XGROUP", "DESTROY", "alerts", "dossier"]).expect("XGROUP DESTROY");
    }
    stored_more(&server, 50);
    let confirmed = load.end();
    drained(&server);
    assert_stored_once(&server, "alerts:enriched", &confirmed);
    let groups = metric(&host, "dossier_queue_group_recreations_total");
    assert!(groups >= 3.0, "{groups}");

    // The stream with all that nobody has read is the deleter's loss; what the host holds is not.
    let some = ids("held", 8);
    held(&server, &host, &some);
    server.ask::<u64>(&["DEL", "alerts"]).expect("DEL");
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).expect("CONFIG SET");
    let after = ids("after", 20);
    send(&server, after.clone());
    until_ready(&host, true);
    drained(&server);
    wait_for("what the host held to be stored", || {
        (metric(&host, "dossier_queue_rescued_alerts_total") >= 8.0).then_some(())
    });
    assert_stored_once(&server, "alerts:enriched", &[some, after].concat());
    assert!(metric(&host, "dossier_alarms_total{alarm=\"group-recreated\"}") > groups);
    happened(&format!(
        "group destroyed 3 times: all {} stored once; stream deleted: the 8 that the host held were stored from memory, \
         20 new ones flowed",
        confirmed.len()
    ));
}

#[test]
fn scripts_that_the_server_forgets_under_load_are_loaded_again_without_trouble() {
    let server = RedisServer::start().expect("redis-server starts");
    let site = site(&server.url(), "");
    let host = start(&site);
    let load = Load::on(&server);
    for _ in 0..20 {
        stored_more(&server, 10);
        server.ask::<()>(&["SCRIPT", "FLUSH"]).expect("SCRIPT FLUSH");
    }
    stored_more(&server, 10);
    let confirmed = load.end();
    drained(&server);
    assert_stored_once(&server, "alerts:enriched", &confirmed);
    assert_eq!(said(&host, "queue trouble"), 0);
    happened(&format!("flushed 20 times; all {} confirmed alerts stored once, no trouble", confirmed.len()));
}

#[test]
fn a_store_of_a_wrong_type_leaves_all_pending_and_one_key_of_a_wrong_type_leaves_one() {
    let server = RedisServer::start().expect("redis-server starts");
    let site = site(&server.url(), "");
    let host = start(&site);
    server.ask::<()>(&["SET", "alerts:enriched", "not a stream"]).expect("SET");
    let all = ids("a", 20);
    send(&server, all.clone());
    let problem = until_ready(&host, false);
    assert!(problem.contains("WRONGTYPE"), "{problem}");
    assert_eq!(length(&server, "alerts"), 20);
    assert!(metric(&host, "dossier_alarms_total{alarm=\"queue-trouble\"}") >= 1.0);
    server.ask::<u64>(&["DEL", "alerts:enriched"]).expect("DEL");
    drained(&server);
    until_ready(&host, true);
    assert_stored_once(&server, "alerts:enriched", &all);

    server.ask::<u64>(&["SADD", "alerts:id:odd", "x"]).expect("SADD");
    let others = ids("b", 50);
    send(&server, others[..25].iter().cloned().chain(["odd".to_owned()]).chain(others[25..].iter().cloned()));
    let refused = line(&host, "commit refused");
    assert_eq!((field(&refused, "id"), field(&refused, "alarm")), (Some(&json!("odd")), Some(&json!(true))));
    wait_for("the others to be stored", || (length(&server, "alerts") == 1).then_some(()));
    assert_eq!(pending(&server), 1);
    assert_stored_once(&server, "alerts:enriched", &others);
    let notice = until_ready(&host, true);
    assert!(notice.contains("1 cannot be committed"), "{notice}");
    // It is tried again although others keep coming.
    let load = Load::on(&server);
    stored_more(&server, 50);
    server.ask::<u64>(&["DEL", "alerts:id:odd"]).expect("DEL");
    let is_stored = || stored(&server, "alerts:enriched").contains_key("odd").then_some(());
    wait_for("the one that was refused to be stored", is_stored);
    let confirmed = load.end();
    drained(&server);
    assert_stored_once(&server, "alerts:enriched", &[confirmed, vec!["odd".to_owned()]].concat());
    assert_eq!(said(&host, "commit refused"), 1);
    wait_for("the notice to go", || (!until_ready(&host, true).contains("cannot be committed")).then_some(()));
    happened(
        "store: all 20 stayed pending, not ready, stored once it was mended; one alert's key: it alone stayed pending, 50 others \
         stored, and it was when the key was mended, under load",
    );
}

#[test]
fn entries_that_are_trimmed_while_a_dead_host_has_them_are_counted_as_lost() {
    let server = RedisServer::start().expect("redis-server starts");
    let site = site(&server.url(), "lease = \"1s\"");
    let host = start(&site);
    held(&server, &host, &ids("a", 8));
    host.kill();
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).expect("CONFIG SET");
    server.ask::<u64>(&["XTRIM", "alerts", "MAXLEN", "3"]).expect("XTRIM");
    let host = start(&site);
    drained(&server);
    let line = line(&host, "entries lost");
    assert_eq!(field(&line, "alarm"), Some(&json!(true)));
    let lost = wait_for("all to be counted", || {
        Some(metric(&host, "dossier_queue_lost_entries_total")).filter(|lost| *lost >= 5.0)
    });
    assert_eq!((lost, pending(&server)), (5.0, 0));
    assert_stored_once(&server, "alerts:enriched", &(5..8).map(|n| format!("a-{n}")).collect::<Vec<_>>());
    happened(&format!("5 of 8 pending entries trimmed: counted {lost} lost with an alarm, the other 3 stored once"));
}

#[test]
fn many_dead_letters_raise_one_alarm_and_none_is_trimmed() {
    let server = RedisServer::start().expect("redis-server starts");
    let site = site(&server.url(), "dlq_alarm = 5");
    let host = start(&site);
    let bury = |count: usize| {
        for n in 0..count {
            server.ask::<String>(&["XADD", "alerts", "*", "alert", &format!("broken {n}")]).expect("XADD");
        }
        drained(&server);
    };
    bury(4);
    // A look at the queue's depth later there is still no alarm.
    wait_for("a look at the depth", || (metric(&host, "dossier_queue_dead_letters") >= 4.0).then_some(()));
    assert_eq!(said(&host, "many dead letters"), 0);
    bury(20);
    let many = line(&host, "many dead letters");
    assert_eq!(field(&many, "alarm"), Some(&json!(true)));
    assert_eq!(metric(&host, "dossier_dead_letters_over_threshold"), 1.0);
    wait_for("a notice", || host.get("/readyz").1.contains("dossier dlq list").then_some(()));
    bury(20);
    assert_eq!(length(&server, "alerts:dlq"), 44);
    server.ask::<u64>(&["XTRIM", "alerts:dlq", "MAXLEN", "4"]).expect("XTRIM");
    line(&host, "not many dead letters any more");
    assert_eq!(metric(&host, "dossier_dead_letters_over_threshold"), 0.0);
    assert_eq!(said(&host, "many dead letters"), 1);
    happened("44 dead letters with dlq_alarm = 5: none trimmed, one alarm, and one line when there were fewer again");
}

#[test]
fn a_host_with_a_twin_of_the_same_name_says_so_and_ends_and_each_alert_is_stored_once() {
    let server = RedisServer::start().expect("redis-server starts");
    let site = site(&server.url(), "lease = \"1s\"");
    let host = start(&site);
    let first = ids("a", 20);
    send(&server, first.clone());
    drained(&server);
    let consumers: Vec<BTreeMap<String, redis::Value>> =
        server.ask(&["XINFO", "CONSUMERS", "alerts", "dossier"]).expect("XINFO");
    let name: String = redis::from_redis_value(consumers[0]["name"].clone()).expect("a name");

    // What the twin, a copy of the running machine, does: it reads under that name, and renews the lease.
    host.signal(Signal::STOP);
    let second = ids("b", 20);
    send(&server, second.clone());
    let arguments = ["XREADGROUP", "GROUP", "dossier", &name, "COUNT", "10", "STREAMS", "alerts", ">"];
    server.ask::<redis::Value>(&arguments).expect("XREADGROUP");
    server.ask::<()>(&["SET", &format!("alerts:lease:{name}"), "the twin's mark", "PX", "1000"]).expect("SET");
    host.signal(Signal::CONT);
    let began = Instant::now();
    line(&host, "consumer shared");
    assert!(host.wait().code().is_some_and(|code| code != 0));
    let ended = began.elapsed();

    // And then it ends, too; another host takes over when the lease is over.
    let _other = start(&site);
    drained(&server);
    assert_stored_once(&server, "alerts:enriched", &[first, second].concat());
    happened(&format!("detected, the host ended after {} ms; 40 alerts stored once", ended.as_millis()));
}

#[test]
fn a_slow_owner_whose_entries_were_claimed_and_stored_changes_nothing_when_it_comes_late() {
    let server = RedisServer::start().expect("redis-server starts");
    let (slow_site, quick_site) = (site(&server.url(), "lease = \"1s\""), site(&server.url(), "lease = \"1s\""));
    let slow = start(&slow_site);
    let all = ids("a", 8);
    held(&server, &slow, &all);
    slow.signal(Signal::STOP);
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).expect("CONFIG SET");
    let quick = start(&quick_site);
    drained(&server);
    line(&quick, "alerts claimed");
    let before = length(&server, "alerts:enriched");
    slow.signal(Signal::CONT);
    let lost = wait_for("the slow host to come late", || {
        let lost = slow.log().iter().filter(|line| field(line, "outcome").is_some_and(|end| end == "lost")).count();
        (lost == 8).then_some(lost)
    });
    assert_eq!(length(&server, "alerts:enriched"), before);
    assert_stored_once(&server, "alerts:enriched", &all);
    assert_eq!(length(&server, "alerts:dlq"), 0);
    happened(&format!("8 claimed from a frozen host and stored; its {lost} late commits changed nothing"));
}

#[test]
fn an_id_from_the_far_future_stops_nothing_and_has_no_age() {
    let server = RedisServer::start().expect("redis-server starts");
    let site = site(&server.url(), "");
    let host = start(&site);
    host.signal(Signal::STOP);
    server.ask::<String>(&["XADD", "alerts", "9999999999999-1", "alert", "{\"id\":\"future\"}"]).expect("XADD");
    let after = ids("after", 20);
    send(&server, after.clone());
    let status = site.status();
    // A read that waited has taken the first.
    let count = status["waiting"].as_u64().zip(status["in_flight"].as_u64()).map(|(waiting, taken)| waiting + taken);
    assert_eq!((&status["oldest_seconds"], count), (&json!(0.0), Some(21)), "{status}");
    host.signal(Signal::CONT);
    drained(&server);
    assert_stored_once(&server, "alerts:enriched", &[vec!["future".to_owned()], after].concat());
    until_ready(&host, true);
    happened("age 0 s; it and 20 alerts after it stored once");
}

#[test]
fn a_host_that_is_woken_by_what_is_gone_already_waits_on() {
    let server = RedisServer::start().expect("redis-server starts");
    let site = site(&server.url(), "");
    let mut host = start(&site);
    let blocked = || {
        wait_for("the host to wait", || {
            let clients: String = server.ask(&["INFO", "clients"]).expect("INFO");
            clients.contains("blocked_clients:1").then_some(())
        });
    };
    for round in 0..5 {
        blocked();
        let mut connection = server.connection().expect("a connection");
        let mut nothing = redis::pipe();
        nothing.atomic().cmd("XADD").arg(&["alerts", "*", "alert", "gone"]);
        nothing.cmd("XTRIM").arg(&["alerts", "MAXLEN", "0"]);
        nothing.exec(&mut connection).expect("MULTI");
        // As after the group was made again on an empty stream, with another group that goes.
        blocked();
        server.ask::<()>(&["XGROUP", "SETID", "alerts", "dossier", "0"]).expect("XGROUP SETID");
        server.ask::<()>(&["XGROUP", "CREATE", "alerts", "other", "0"]).expect("XGROUP CREATE");
        server.ask::<u64>(&["XGROUP", "DESTROY", "alerts", "other"]).expect("XGROUP DESTROY");
        let id = format!("after-{round}");
        send(&server, [id.clone()]);
        drained(&server);
        assert!(host.is_alive());
        assert_stored_once(&server, "alerts:enriched", &[id]);
    }
    assert_eq!(said(&host, "queue trouble"), 0);
    happened("woken 10 times for nothing: waited on, and stored what came then");
}
