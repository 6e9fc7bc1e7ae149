//! Sentinels: the primary is killed, they name another one, and the host finds it.

use dossier_tests::happened::happened;
use dossier_tests::redis_server::free_port;

use super::*;

/// A Sentinel of the service `main`, whose primary is at this port.
fn sentinel(folder: &std::path::Path, primary: &str) -> (RedisServer, String) {
    let port = free_port().expect("a port").to_string();
    let file = folder.join(format!("{port}.conf"));
    let settings = format!(
        "sentinel monitor main 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds main 700\n\
         sentinel failover-timeout main 4000\nuser default on nopass ~* &* +@all -sentinel|get-master-addr-by-name\n\
         user asker on >s3cret-1 ~* &* +@all\n"
    );
    std::fs::write(&file, settings).expect("a file");
    let server = RedisServer::with(&[&file.display().to_string(), "--port", &port, "--sentinel"]);
    (server.expect("redis-server starts as a Sentinel"), port)
}

#[test]
fn when_sentinels_fail_over_the_host_finds_the_new_primary_and_what_a_replica_confirmed_is_stored_once() {
    let (first, second) = (free_port().expect("a port").to_string(), free_port().expect("a port").to_string());
    let user = ["--user", "dossier", "on", ">s3cret-2", "~alerts", "~alerts:*", "+@all"];
    let server = |options: &[&str]| RedisServer::with(&[options, &user].concat()).expect("redis-server starts");
    let primary = server(&["--port", &first, "--repl-diskless-sync-delay", "0"]);
    let replica = server(&["--port", &second, "--replicaof", "127.0.0.1", &first]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sentinels: Vec<_> = (0..3).map(|_| sentinel(folder.path(), &first)).collect();
    wait_for("the Sentinels to know each other and the replica", || {
        sentinels
            .iter()
            .all(|(server, _)| {
                let masters: Vec<BTreeMap<String, String>> = server.ask(&["SENTINEL", "MASTERS"]).unwrap_or_default();
                let main = masters.first();
                main.is_some_and(|main| main["num-other-sentinels"] == "2" && main["num-slaves"] == "1")
            })
            .then_some(())
    });
    let hosts: Vec<_> = sentinels.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
    let query = "sentinel_user=asker&sentinel_password=s3cret-1";
    let url = format!("redis+sentinel://dossier:s3cret-2@{}/main/0?{query}", hosts.join(","));
    let site = site(&url, "");
    assert!(site.succeed(&["validate"]).contains("is fine"));
    let host = start(&site);
    let old = primary.url();
    let load = Load::begin(Producing { replicas: 1, ..Producing::default() }, move || connect(&old));
    stored_more(&primary, 100);
    // One Sentinel does not answer either; two are enough.
    sentinels[0].0.kill();
    primary.kill();
    let began = Instant::now();
    let before = load.end();
    wait_for("the replica to be the primary", || {
        replica.ask::<String>(&["INFO", "replication"]).ok()?.contains("role:master").then_some(())
    });
    let promoted = began.elapsed();
    let new = replica.url();
    let load = Load::begin(Producing { name: "after", ..Producing::default() }, move || connect(&new));
    stored_more(&replica, 100);
    let took = began.elapsed();
    assert!(replica.ask::<String>(&["CLIENT", "LIST"]).expect("clients").contains("user=dossier"));
    let secrets: Vec<_> = host.log().iter().map(ToString::to_string).filter(|line| line.contains("s3cret")).collect();
    assert!(secrets.is_empty(), "{secrets:?}");
    let after = load.end();
    drained(&replica);
    until_ready(&host, true);
    assert_stored_once(&replica, "alerts:enriched", &[before.clone(), after].concat());
    happened(&format!(
        "promoted {} ms after the kill, 100 alerts stored there after {} ms; all {} alerts that the replica had confirmed stored once",
        promoted.as_millis(),
        took.as_millis(),
        before.len()
    ));
}
