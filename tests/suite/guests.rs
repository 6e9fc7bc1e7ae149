//! Guests that misbehave, each with its test, and what the tests share. The guests lie in `tests/guests/`, one file each.

mod calls;
mod compiling;
mod loading;
mod wasi;

/// Every guest. One that no test uses is an error: it would show nothing.
#[deny(dead_code)]
mod all {
    use dossier_tests::guest::{Guest, Source};

    include!(concat!(env!("OUT_DIR"), "/guests.rs"));
}

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dossier::admin::Health;
use dossier::alert::Decoder;
use dossier::config::Config;
use dossier::pipeline::{Answer, Cost, Enricher, Failure, Given};
use dossier::plugin::Plugins;
use dossier::telemetry::Telemetry;
use dossier_tests::guest::{Guest, Source};
use dossier_tests::happened::happened;
use dossier_tests::host::{Host, Site, built};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What one call may add to the host's memory, in bytes: its own bounds, and what the allocator keeps.
const ROOM: u64 = 48 << 20;

/// A step for a guest, with the grants that `mischief` wants.
fn step(guest: &Guest, more: &str) -> String {
    let granted = match guest.source {
        Source::Mode(_) => "tables = [\"t\"]\nhttp = [\"api\"]\n",
        _ => "",
    };
    format!(
        "[tables.t]\nfile = \"t.txt\"\n[http.api]\nurl = \"http://127.0.0.1:9\"\n[[step]]\nplugin = \"{}\"\n{granted}{more}\n",
        guest.plugin()
    )
}

/// A site whose one step is a guest.
fn site(guest: &Guest, more: &str) -> Site {
    let site = Site::new(&step(guest, more));
    site.write("t.txt", b"key\n");
    site.write(&format!("plugins/{}.wasm", guest.plugin()), &guest.component());
    site
}

/// Asks a guest to do what it does.
fn asked(guest: &Guest, what: &Value) -> Value {
    let mut alert = what.clone();
    if let Source::Mode(mode) = guest.source {
        alert["mischief"] = mode.into();
    }
    alert
}

fn peak(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).expect("the host runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak of memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Runs a real host with a guest and sends an alert that obeys the limit, one that violates it, and one that asks for nothing:
/// the first and the last are stored, and the second is a dead letter with this reason and these words. Without an alert that
/// obeys there is no limit to obey. Gives how much memory it cost the host, in bytes.
fn trial(guest: &Guest, more: &str, obeys: Option<Value>, violates: &Value, reason: &str, words: &str) -> u64 {
    let site = site(guest, more);
    let host = site.start();
    host.admin();
    let send = |id: &str, alert: &Value| {
        let mut alert = asked(guest, alert);
        alert["id"] = id.into();
        site.send(format!("{alert}\n").as_bytes());
        site.drained();
    };
    let good = if let Some(obeys) = &obeys {
        send("obeys", obeys);
        vec!["next", "obeys"]
    } else {
        vec!["next"]
    };
    let before = peak(&host);
    send("violates", violates);
    site.send(b"{\"id\":\"next\"}\n");
    site.drained();
    let grown = peak(&host) - before;
    assert!(grown <= ROOM, "{}: {grown} bytes more", guest.name);
    let mut stored: Vec<_> =
        site.processed().iter().map(|(_, record)| record["id"].as_str().expect("an id").to_owned()).collect();
    stored.sort();
    assert_eq!(stored, good, "{}: {:?}", guest.name, letter(&site));
    let letter = letter(&site).expect("a dead letter");
    assert_eq!(letter["reason"], reason, "{letter}");
    assert!(letter["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{letter}");
    happened(&format!(
        "{}: dead letter \"{reason}\", the next alert stored; {} KiB more memory",
        guest.name,
        grown >> 10
    ));
    assert_eq!(host.stop(), Some(0));
    grown
}

/// The dead letter of `violates`.
fn letter(site: &Site) -> Option<Value> {
    let bytes = fs::read(site.path("queue/errors/alert-violates.reason")).ok()?;
    Some(serde_json::from_slice(&bytes).expect("a dead letter is JSON"))
}

/// A guest in the sandbox, without a host around it.
struct Loaded {
    enricher: Arc<dyn Enricher>,
    folder: TempDir,
    _plugins: Plugins,
}

/// Loads a component as a plugin; the error is what keeps the host from being ready.
async fn load_as(plugin: &str, component: &[u8], config: &str) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("plugins")).expect("a folder for plugins");
    fs::write(folder.path().join(format!("plugins/{plugin}.wasm")), component).expect("the plugin");
    let config = Arc::new(Config::parse(&folder.path().join("dossier.toml"), config).expect("a configuration"));
    let health = Arc::new(Health::default());
    let plugins =
        Plugins::start_with(built("release/dossier"), config, Arc::new(Telemetry::default()), Arc::clone(&health));
    let plugins = plugins.await.expect("the engine starts");
    let steps = plugins.subscribe().borrow().clone();
    let problem = || health.problems().remove("plugins").expect("a reason");
    let leftovers = || {
        let entries = fs::read_dir(folder.path().join("state/compiled")).expect("a state folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names.filter(|name| name.as_encoded_bytes().starts_with(b".")).collect::<Vec<_>>()
    };
    let Some(steps) = steps else {
        // What is refused leaves nothing unfinished behind.
        assert_eq!(leftovers(), [""; 0]);
        return Err(problem());
    };
    let enricher = steps.steps()[0].enricher.clone().expect("a plugin");
    Ok(Loaded { enricher, folder, _plugins: plugins })
}

async fn load(guest: &Guest, more: &str) -> Result<Loaded, String> {
    load_as(guest.plugin(), &guest.component(), &step(guest, more)).await
}

impl Loaded {
    async fn call(&self, alert: &Value) -> (Result<Answer, Failure>, Cost) {
        let config = Config::parse(Path::new("dossier.toml"), "").expect("a configuration");
        let received = "1970-01-01T00:00:00Z".parse().expect("a time");
        let alert = Decoder::new(&config.alert).decode(alert.to_string().into_bytes().into(), received);
        let alert = Arc::new(alert.expect("an alert"));
        let given = Given { alert, observables: Arc::default(), enrichment: Vec::new(), tables: Arc::default() };
        self.enricher.enrich(Arc::new(given)).await
    }

    /// The answer to an alert with this amount.
    async fn fields(&self, amount: u64) -> Value {
        let (outcome, _) = self.call(&json!({ "amount": amount })).await;
        serde_json::from_str(outcome.expect("an answer").fields.get()).expect("an object")
    }

    /// Whether it is configured in each instance, because it could not be copied.
    fn is_plain(&self) -> bool {
        let entries = fs::read_dir(self.folder.path().join("state/compiled")).expect("a state folder");
        let labels = entries.map(|entry| entry.expect("an entry").path());
        let label = labels.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "json"));
        !fs::read_to_string(label.expect("a label")).expect("a label").contains("\"plain\":null")
    }
}
