//! The two kinds of queue, so that one test can speak to both.

use std::collections::BTreeMap;

use dossier_tests::host::Site;
use dossier_tests::redis_server::RedisServer;
use serde_json::Value;

/// A kind of queue with what it needs.
pub enum Kind {
    /// Folders in the site.
    Directory,
    /// A `redis-server` of the test's own.
    Redis(RedisServer),
}

/// Runs a test on both kinds, the directory first.
pub fn both(test: impl Fn(&Kind)) {
    for kind in [Kind::Directory, Kind::Redis(RedisServer::start().expect("redis-server starts"))] {
        println!("on the {} queue", kind.name());
        test(&kind);
    }
}

impl Kind {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Redis(_) => "redis",
        }
    }

    /// The `[queue]` part of a configuration. A lease as short as it may be: tests wait for dead hosts.
    pub fn config(&self) -> String {
        match self {
            Self::Directory => "[queue]\nkind = \"directory\"\n".to_owned(),
            Self::Redis(server) => format!("[queue]\nkind = \"redis\"\nurl = \"{}\"\nlease = \"1s\"\n", server.url()),
        }
    }

    /// Puts bytes into the queue as a producer would that is not ours: a file, or XADD.
    pub fn put(&self, site: &Site, bytes: &[u8]) {
        match self {
            Self::Directory => {
                let name = dossier::alert::id_of_bytes(bytes);
                let half = format!("queue/pending/.{name}");
                site.write(&half, bytes);
                let whole = site.path(&format!("queue/pending/{name}.json"));
                std::fs::rename(site.path(&half), whole).expect("the file in its place");
            }
            Self::Redis(server) => {
                let mut connection = server.connection().expect("a connection");
                redis::cmd("XADD").arg("alerts").arg("*").arg("alert").arg(bytes).exec(&mut connection).expect("XADD");
            }
        }
    }

    /// Disturbs the only alert while a host has it: touches its file, or deletes its entry.
    pub fn disturb(&self, site: &Site) {
        match self {
            Self::Directory => {
                let entry = std::fs::read_dir(site.path("queue/pending")).expect("a folder").next();
                let file =
                    std::fs::File::options().append(true).open(entry.expect("an alert").expect("an entry").path());
                let now = std::time::SystemTime::now();
                file.expect("the alert's file").set_modified(now).expect("the file can be touched");
            }
            Self::Redis(server) => {
                let entries: Vec<(String, Vec<String>)> =
                    server.ask(&["XRANGE", "alerts", "-", "+"]).expect("the stream can be read");
                let deleted: u64 = server.ask(&["XDEL", "alerts", &entries[0].0]).expect("XDEL");
                assert_eq!(deleted, 1);
            }
        }
    }

    /// Every stored record.
    pub fn records(&self, site: &Site) -> Vec<Value> {
        match self {
            Self::Directory => site.processed().into_iter().map(|(_, record)| record).collect(),
            Self::Redis(server) => entries(server, "alerts:enriched")
                .iter()
                .map(|fields| serde_json::from_slice(&fields["record"]).expect("a record is JSON"))
                .collect(),
        }
    }

    /// Every dead letter: its reason and the original's bytes.
    pub fn dead(&self, site: &Site) -> Vec<(String, Vec<u8>)> {
        let reason = |letter: &[u8]| {
            let letter: Value = serde_json::from_slice(letter).expect("a dead letter is JSON");
            letter["reason"].as_str().expect("a reason").to_owned()
        };
        match self {
            Self::Directory => std::fs::read_dir(site.path("queue/errors"))
                .expect("a folder of dead letters")
                .map(|entry| entry.expect("an entry").path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
                .map(|path| {
                    let letter = std::fs::read(path.with_extension("reason")).expect("a reason beside it");
                    (reason(&letter), std::fs::read(&path).expect("the original"))
                })
                .collect(),
            Self::Redis(server) => entries(server, "alerts:dlq")
                .into_iter()
                .map(|mut fields| (reason(&fields["dead"]), fields.remove("alert").unwrap_or_default()))
                .collect(),
        }
    }
}

/// Every entry of a stream: its fields.
fn entries(server: &RedisServer, stream: &str) -> Vec<BTreeMap<String, Vec<u8>>> {
    let entries: Vec<(String, BTreeMap<String, Vec<u8>>)> =
        server.ask(&["XRANGE", stream, "-", "+"]).expect("the stream can be read");
    entries.into_iter().map(|(_, fields)| fields).collect()
}

/// What a step's result says about one address.
pub fn about<'a>(result: &'a Value, address: &str) -> Option<&'a Value> {
    result["addresses"].as_array()?.iter().find(|entry| entry["address"] == address)
}
