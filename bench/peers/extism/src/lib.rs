//! The plugins' own code, hosted by extism: the components of `guests/`, with an instance of each on every core. Mode `fresh` makes
//! new instances for every alert, any other uses them again.

mod case;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use case::Case;
use extism::{CompiledPlugin, CurrentPlugin, Manifest, PTR, Plugin, PluginBuilder, UserData, Val, Wasm};
use peer_shared::{Enrich, Tables, observables};
use serde_json::Value;

peer_shared::peer!(open);

/// The plugins in the order of their steps, with their settings. The last gives the verdict.
const PLUGINS: [(&str, &str); 4] = [
    ("ip-reputation", r#"{"feeds":[{"table":"blocklist","category":"blocklist","score":"lists"}]}"#),
    ("asset", "{}"),
    ("geo", "{}"),
    ("verdict", "{}"),
];

/// What all cores share.
static TABLES: OnceLock<Arc<Tables<Arc<str>>>> = OnceLock::new();

fn open(folder: &Path, mode: &str) -> Result<Enrich> {
    if TABLES.get().is_none() {
        // Whoever came first has set it.
        let _ = TABLES.set(Arc::new(Tables::load(folder, |row| row.to_string().into())?));
    }
    let tables = TABLES.get().map(Arc::clone).context("there are no tables")?;
    let case = UserData::new(Case::new(tables));
    let guests = std::env::var_os("PEER_GUESTS").context("PEER_GUESTS does not say where the guests are")?;
    let compiled = PLUGINS.map(|(name, _)| compile(Path::new(&guests), name, &case));
    let compiled: Vec<CompiledPlugin> = compiled.into_iter().collect::<Result<_>>()?;
    let instances = move || -> Result<Vec<Plugin>> {
        compiled.iter().zip(PLUGINS).map(|(one, (_, settings))| instance(one, settings)).collect()
    };
    let mut kept = instances()?;
    let fresh = mode == "fresh";
    Ok(Box::new(move |alert| {
        if fresh {
            kept = instances()?;
        }
        let value: Value = serde_json::from_slice(alert)?;
        let observables = observables(&value);
        let found = serde_json::to_string(&observables)?;
        case.get()?.lock().map_err(|_| anyhow::anyhow!("a call panicked"))?.begin(value, observables);
        let (mut results, mut verdict) = (Vec::new(), String::from("null"));
        for (plugin, (name, _)) in kept.iter_mut().zip(PLUGINS) {
            let output: &str = plugin.call("enrich", "").with_context(|| name.to_owned())?;
            let (fields, last) = output.split_once('\n').context("a plugin's output has no second line")?;
            results.push(format!("\"{name}\":{fields}"));
            if last.is_empty() {
                let fields = serde_json::from_str(fields)?;
                case.get()?.lock().map_err(|_| anyhow::anyhow!("a call panicked"))?.results.push((name, fields));
            } else {
                verdict = last.to_owned();
            }
        }
        let results = results.join(",");
        Ok(format!("{{\"observables\":{found},\"enrichment\":{{{results}}},\"verdict\":{verdict}}}").into_bytes())
    }))
}

fn compile(guests: &Path, name: &str, case: &UserData<Case>) -> Result<CompiledPlugin> {
    let file = guests.join(format!("extism_{}.wasm", name.replace('-', "_")));
    let wasm = std::fs::read(&file).with_context(|| file.display().to_string())?;
    let manifest = Manifest::new([Wasm::data(wasm)]);
    let builder = PluginBuilder::new(manifest).with_wasi(false);
    let builder = builder.with_function("ask", [PTR, PTR, PTR], [PTR], case.clone(), ask);
    builder.compile().with_context(|| name.to_owned())
}

fn instance(compiled: &CompiledPlugin, settings: &str) -> Result<Plugin> {
    let mut plugin = Plugin::new_from_compiled(compiled)?;
    plugin.call::<&str, &[u8]>("configure", settings)?;
    Ok(plugin)
}

/// What plugins may ask: see [`Case::ask`].
fn ask(plugin: &mut CurrentPlugin, asked: &[Val], answer: &mut [Val], case: UserData<Case>) -> Result<()> {
    let mut words = Vec::with_capacity(3);
    for value in asked {
        words.push(plugin.memory_get_val::<String>(value)?);
    }
    let [what, one, two] = &words[..] else { anyhow::bail!("ask has three arguments") };
    let said = case.get()?.lock().map_err(|_| anyhow::anyhow!("a call panicked"))?.ask(what, one, two)?;
    let mut bytes = vec![u8::from(said.is_some())];
    bytes.extend_from_slice(said.unwrap_or_default().as_bytes());
    let memory = plugin.memory_new(bytes)?;
    answer[0] = plugin.memory_to_val(memory);
    Ok(())
}
