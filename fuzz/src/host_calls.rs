//! A guest that calls the host with any pointers, lengths, handles and bytes, through the real linker, in the real sandbox: the call
//! comes back in time, with an answer that is a JSON object or with a failure that names the plugin and nothing else. There is no
//! network: the one interface that is granted leads to a closed port of this machine.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dossier::alert::Decoder;
use dossier::config::Config;
use dossier::dead_letter::Reason;
use dossier::pipeline::{Enricher, Failure, Given};
use dossier::plugin::Plugins;
use dossier::tables::{Snapshot, Tables};
use dossier::telemetry::Telemetry;
use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

/// The guest.
const CALLER: &str = include_str!("caller.wat");

/// How much of the input becomes a program.
const LONGEST: usize = 4096;

const CONFIG: &str = r#"
state_dir = "state"
[tables.t]
file = "table.csv"
key = "ip"
[http.api]
url = "http://127.0.0.1:1"
private = true
[[step]]
plugin = "caller"
tables = ["t"]
http = ["api"]
fuel = 3_000_000
timeout = "1s"
memory = "1MiB"
"#;

/// What is made once.
struct Site {
    runtime: Runtime,
    decoder: Decoder,
    tables: Arc<Snapshot>,
    step: Arc<dyn Enricher>,
    /// The plugin is watched while this is there; the folder is its own.
    _alive: (Plugins, tempfile::TempDir),
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| make().unwrap_or_else(|why| panic!("the site of the guest: {why}")))
}

fn make() -> Result<Site, Box<dyn std::error::Error>> {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/release/dossier");
    if !program.exists() {
        return Err("target/release/dossier is not built; run cargo xtask fuzz or cargo xtask test".into());
    }
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("plugins"))?;
    std::fs::write(folder.path().join("plugins/caller.wasm"), component()?)?;
    std::fs::write(folder.path().join("table.csv"), "ip,name,n\n10.0.0.0/8,dc01,7\nhost,\"a \"\"b\",\n")?;
    let config = Arc::new(Config::parse(&folder.path().join("dossier.toml"), CONFIG)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let telemetry = Arc::new(Telemetry::default());
    let tables = Tables::open(&config, Arc::clone(&telemetry)).map_err(|findings| format!("{findings:?}"))?.snapshot();
    let plugins = runtime.block_on(Plugins::start_with(program, Arc::clone(&config), telemetry, Arc::default()))?;
    let pipeline = plugins.subscribe().borrow().clone().ok_or("the guest was refused")?;
    let step = pipeline.steps().iter().find_map(|step| step.enricher.clone()).ok_or("the guest is no step")?;
    Ok(Site { runtime, decoder: Decoder::new(&config.alert), tables, step, _alive: (plugins, folder) })
}

/// The guest as a component.
fn component() -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut module = wat::parse_str(CALLER)?;
    let mut wit = wit_parser::Resolve::default();
    let (package, _) = wit.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/v1"))?;
    let world = wit.select_world(&[package], Some("plugin"))?;
    wit_component::embed_component_metadata(&mut module, &wit, world, wit_component::StringEncoding::UTF8)?;
    Ok(wit_component::ComponentEncoder::default().module(&module)?.encode()?)
}

/// Any bytes: the guest's program.
///
/// # Panics
/// A promise is broken.
pub fn run(data: &[u8]) {
    let site = site();
    let program = hex::encode(&data[..data.len().min(LONGEST)]);
    let alert = format!(
        r#"{{"id":"a","src_ip":"10.0.0.1","user":["b","c"],"deep":{{"a/b":[1,true,null]}},"program":"{program}"}}"#
    );
    let alert = site.decoder.decode(Bytes::from(alert), Timestamp::UNIX_EPOCH);
    let alert = Arc::new(alert.unwrap_or_else(|error| panic!("the alert is made here: {error}")));
    let fields = RawValue::from_string(r#"{"a":{"b":"text"},"n":7}"#.into());
    let given = Arc::new(Given {
        observables: alert.observables.clone(),
        alert,
        enrichment: fields.map(|fields| ("earlier".to_owned(), fields)).into_iter().collect(),
        tables: Arc::clone(&site.tables),
    });
    let begun = Instant::now();
    let (outcome, cost) = site.runtime.block_on(site.step.enrich(given));
    // A second is granted; the rest is for a machine that does other things as well.
    assert!(begun.elapsed() < Duration::from_secs(10), "the call took {:?}", begun.elapsed());
    assert!(cost.memory <= 1 << 20, "{} bytes of memory", cost.memory);
    match outcome {
        Ok(answer) => {
            assert!(answer.fields.get().starts_with('{') && crate::is_json(answer.fields.get()), "{}", answer.fields);
            assert!(answer.observables.is_empty() && answer.verdict.is_none(), "only other stages give those");
        }
        Err(Failure::Failed { reason, .. }) => assert!(
            matches!(
                reason,
                Reason::Trap
                    | Reason::OutOfFuel
                    | Reason::Memory
                    | Reason::Timeout
                    | Reason::InvalidOutput
                    | Reason::Invalid
                    | Reason::PluginError
            ),
            "{reason}"
        ),
        Err(Failure::NotApplicable(_) | Failure::Unavailable { .. }) => {}
    }
}
