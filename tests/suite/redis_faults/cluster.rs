//! A Cluster of three nodes: the stream's slot goes to another node under load.

use dossier_tests::happened::happened;
use dossier_tests::redis_server::free_port;

use super::*;

const STREAM: &str = "{alerts}";

/// A node with its port, its bus' port and its id.
struct Node {
    server: RedisServer,
    port: String,
    bus: String,
    id: String,
}

impl Node {
    fn start() -> Self {
        let (port, bus) = (free_port().expect("a port").to_string(), free_port().expect("a port").to_string());
        let server = RedisServer::with(&[
            "--port",
            &port,
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            "2000",
        ])
        .expect("redis-server starts as a node");
        let id = server.ask(&["CLUSTER", "MYID"]).expect("an id");
        Self { server, port, bus, id }
    }

    fn cluster(&self, words: &[&str]) {
        let words = [&["CLUSTER"], words].concat();
        self.server.ask::<()>(&words).unwrap_or_else(|error| panic!("{words:?}: {error:#}"));
    }
}

/// Three nodes that serve a third of the slots each.
fn cluster() -> Vec<Node> {
    let nodes: Vec<_> = (0..3).map(|_| Node::start()).collect();
    for ((node, epoch), [first, last]) in
        nodes.iter().zip(1..).zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]])
    {
        node.cluster(&["SET-CONFIG-EPOCH", &epoch.to_string()]);
        node.cluster(&["ADDSLOTSRANGE", first, last]);
        if epoch > 1 {
            nodes[0].cluster(&["MEET", "127.0.0.1", &node.port, &node.bus]);
        }
    }
    wait_for("the nodes to agree", || {
        let fine = |node: &Node| {
            let info: String = node.server.ask(&["CLUSTER", "INFO"]).expect("a node answers");
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        };
        nodes.iter().all(fine).then_some(())
    });
    nodes
}

#[test]
fn a_cluster_whose_slot_of_the_stream_moves_to_another_node_under_load_is_followed() {
    let nodes = cluster();
    let slot: u64 = nodes[0].server.ask(&["CLUSTER", "KEYSLOT", STREAM]).expect("a slot");
    let owner = usize::try_from(slot / 5461).expect("one of three");
    let (from, to) = (&nodes[owner], &nodes[(owner + 1) % 3]);
    // The URL names the node that will have the stream last of all, and one that never has it.
    let other = &nodes[(owner + 2) % 3];
    let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", other.port, to.port);
    let untagged = site(&url, "");
    let said = String::from_utf8(untagged.dossier(&["validate"]).stdout).expect("text");
    assert!(said.contains("hash tag"), "{said}");
    // With one node named, the way to another is not taken.
    let one = site(&format!("redis://127.0.0.1:{}/0", other.port), "stream = \"{alerts}\"");
    let said = String::from_utf8(one.dossier(&["status"]).stderr).expect("text");
    assert!(said.contains("MOVED") && said.contains("redis+cluster://"), "{said}");
    let site = site(&url, "stream = \"{alerts}\"");
    assert!(site.succeed(&["validate"]).contains("is fine"));
    let host = start(&site);

    let urls: Vec<_> = nodes.iter().map(|node| node.server.url()).collect();
    let mut turn = 0;
    let load = Load::begin(Producing { stream: STREAM, ..Producing::default() }, move || {
        turn += 1;
        connect(&urls[turn % urls.len()])
    });
    let store = format!("{STREAM}:enriched");
    let count = |node: &Node| node.server.ask::<u64>(&["XLEN", &store]).unwrap_or_default();
    wait_for("alerts to be stored", || (count(from) >= 100).then_some(()));

    let slot = slot.to_string();
    to.cluster(&["SETSLOT", &slot, "IMPORTING", &from.id]);
    from.cluster(&["SETSLOT", &slot, "MIGRATING", &to.id]);
    let began = Instant::now();
    let mut moved = 0;
    loop {
        let keys: Vec<String> = from.server.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).expect("keys");
        if keys.is_empty() {
            break;
        }
        moved += keys.len();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let words = [&["MIGRATE", "127.0.0.1", &to.port, "", "0", "5000", "KEYS"], &keys[..]].concat();
        from.server.ask::<String>(&words).expect("MIGRATE");
    }
    for node in [to, from, other] {
        node.cluster(&["SETSLOT", &slot, "NODE", &to.id]);
    }
    let before = count(to);
    wait_for("alerts to be stored by the other node", || (count(to) >= before + 100).then_some(()));
    let took = began.elapsed();
    let confirmed = load.end();
    wait_for("the queue to be empty", || (to.server.ask::<u64>(&["XLEN", STREAM]).ok()? == 0).then_some(()));
    until_ready(&host, true);
    assert_stored_once(&to.server, &store, &confirmed);
    assert_eq!(to.server.ask::<u64>(&["XLEN", "{alerts}:dlq"]).expect("the dead letters"), 0);
    happened(&format!(
        "slot {slot} with {moved} keys moved; 100 alerts stored by the other node {} ms after it began; all {} confirmed stored once",
        took.as_millis(),
        confirmed.len()
    ));
}

#[test]
fn a_cluster_whose_node_with_the_stream_is_killed_is_followed_to_the_replica_that_takes_over() {
    let nodes = cluster();
    let slot: u64 = nodes[0].server.ask(&["CLUSTER", "KEYSLOT", STREAM]).expect("a slot");
    let owner = &nodes[usize::try_from(slot / 5461).expect("one of three")];
    let replica = Node::start();
    owner.cluster(&["MEET", "127.0.0.1", &replica.port, &replica.bus]);
    wait_for("the replica to know the owner", || {
        replica.server.ask::<()>(&["CLUSTER", "REPLICATE", &owner.id]).is_ok().then_some(())
    });
    let info = |name: &str| replica.server.ask::<String>(&["INFO", name]).expect("the replica answers");
    wait_for("the replica to follow", || info("replication").contains("master_link_status:up").then_some(()));
    wait_for("all to know the replica", || {
        let known = |node: &Node| {
            let nodes: String = node.server.ask(&["CLUSTER", "NODES"]).expect("a node answers");
            nodes.contains(&format!("slave {}", owner.id))
        };
        nodes.iter().all(known).then_some(())
    });
    // The URL names the owner alone: the others were heard of.
    let site = site(&format!("redis+cluster://127.0.0.1:{}", owner.port), "stream = \"{alerts}\"");
    let host = start(&site);
    let url = owner.server.url();
    let load = Load::begin(Producing { stream: STREAM, replicas: 1, ..Producing::default() }, move || connect(&url));
    let store = format!("{STREAM}:enriched");
    let stored = |node: &Node, count: u64| {
        wait_for("alerts to be stored", || {
            (node.server.ask::<u64>(&["XLEN", &store]).unwrap_or_default() >= count).then_some(())
        });
    };
    stored(owner, 100);
    owner.server.kill();
    let began = Instant::now();
    let before = load.end();
    wait_for("the replica to take over", || info("replication").contains("role:master").then_some(()));
    let promoted = began.elapsed();
    let url = replica.server.url();
    let what = Producing { name: "after", stream: STREAM, ..Producing::default() };
    let load = Load::begin(what, move || connect(&url));
    stored(&replica, before.len() as u64 + 100);
    let took = began.elapsed();
    let after = load.end();
    wait_for("the queue to be empty", || (replica.server.ask::<u64>(&["XLEN", STREAM]).ok()? == 0).then_some(()));
    until_ready(&host, true);
    assert_stored_once(&replica.server, &store, &[before.clone(), after].concat());
    happened(&format!(
        "node killed: its replica took over after {} ms, 100 alerts stored there after {} ms; all {} alerts that the replica had \
         confirmed stored once",
        promoted.as_millis(),
        took.as_millis(),
        before.len()
    ));
}
