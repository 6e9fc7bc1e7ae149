//! Alerts that are enriched anew, cut at every step: the command that sends them, and the host that replaces their records. Each record is
//! replaced once, and no alert is anywhere else.

use dossier_tests::host::Site;
use dossier_tests::redis_server::RedisServer;
use serde_json::json;

use super::cut;
use super::steps::{everywhere, failpoints, told};
use crate::queues::Kind;

/// Stores four alerts, two of which share an id, one with space around it.
fn stored(kind: &Kind, site: &Site) {
    site.send(b"{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"../c\"}\n");
    site.succeed(&["run", "--until-empty"]);
    kind.put(site, b" {\"id\":\"a\",\"n\":2} \n");
    site.succeed(&["run", "--until-empty"]);
    assert_eq!(kind.records(site).len(), 4);
}

/// Sees to it that each was replaced once.
fn replaced_once(kind: &Kind, site: &Site, at: &str) {
    let records = kind.records(site);
    let mut ids: Vec<_> = records.iter().map(|record| record["id"].as_str().expect("an id").to_owned()).collect();
    ids.sort();
    assert!(ids.len() == 4 && ids[..2] == ["../c", "a"] && ids[2].starts_with("a~") && ids[3] == "b", "{at}: {ids:?}");
    for record in &records {
        let pipeline = &record["pipeline"];
        assert_eq!(
            (&pipeline["attempts"], pipeline["history"].as_array().map(Vec::len)),
            (&json!(2), Some(1)),
            "{at}: {record}"
        );
    }
    assert!(kind.dead(site).is_empty(), "{at}");
    let status = site.status();
    assert_eq!((&status["waiting"], &status["in_flight"]), (&0.into(), &0.into()), "{at}: {status}");
}

#[test]
fn a_command_may_die_after_any_step_of_sending_alerts_again() {
    let kind = Kind::Directory;
    let met = everywhere(
        |site| stored(&kind, site),
        &["reenrich", "--all"],
        |cut| {
            let sent = cut.site.succeed(&["reenrich", "--all"]);
            assert!(cut.site.status()["waiting"] == 4, "{}: {sent}", cut.at);
            cut.site.succeed(&["run", "--until-empty"]);
            replaced_once(&kind, cut.site, &cut.at);
        },
    );
    assert!(met.contains_key("file-renamed") && met.contains_key("file-replaced"), "{}", told(&met));
}

#[test]
fn a_host_may_die_after_any_step_of_replacing_a_record() {
    let kind = Kind::Directory;
    let make = |site: &Site| {
        stored(&kind, site);
        site.succeed(&["reenrich", "--all"]);
    };
    let met = everywhere(make, &["run", "--until-empty"], |cut| {
        cut.site.succeed(&["run", "--until-empty"]);
        replaced_once(&kind, cut.site, &cut.at);
        let state = std::fs::read_dir(cut.site.path("queue/.state")).expect("a folder").flatten();
        let marks = state.filter(|entry| entry.file_name().to_string_lossy().ends_with(".again")).count();
        // A mark whose alert is gone is cleared away once it is old.
        assert!(marks <= 1, "{}", cut.at);
    });
    assert!(met.contains_key("file-replaced") && met.contains_key("file-removed"), "{}", told(&met));
}

#[test]
fn a_host_may_die_wherever_redis_is_asked_to_replace_a_record() {
    let kind = Kind::Redis(RedisServer::start().expect("redis-server starts"));
    let Kind::Redis(server) = &kind else { unreachable!("it is one") };
    let mut met = 0;
    for name in failpoints("redis") {
        for pass in 1.. {
            let _: String = server.ask(&["FLUSHALL"]).expect("FLUSHALL");
            let site = Site::new(&kind.config());
            stored(&kind, &site);
            site.succeed(&["reenrich", "--all"]);
            let at = format!("{name}={pass}");
            if !cut(&site, &["run", "--until-empty"], &at) {
                break;
            }
            met += 1;
            site.succeed(&["run", "--until-empty"]);
            replaced_once(&kind, &site, &at);
            site.succeed(&["verify", "--input"]);
        }
    }
    assert!(met >= 5, "only {met} cuts");
}
