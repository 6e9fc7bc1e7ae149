//! The same four look-ups in VRL, Vector's language. The tables are in memory, and the program, which is compiled once, finds rows in
//! them with a function of this library, as Vector's programs do with its enrichment tables.

mod row;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Result, anyhow};
use peer_shared::{Enrich, Tables};
use vrl::compiler::runtime::Runtime;
use vrl::compiler::{Program, TargetValue, TimeZone};
use vrl::value::{Secrets, Value};

const SOURCE: &str = include_str!("enrich.vrl");

peer_shared::peer!(open);

/// What all cores share.
static PROGRAM: OnceLock<Arc<Program>> = OnceLock::new();

fn open(folder: &Path, _: &str) -> Result<Enrich> {
    if PROGRAM.get().is_none() {
        let tables = Arc::new(Tables::load(folder, Value::from)?);
        let mut functions = vrl::stdlib::all();
        functions.push(Box::new(row::Row(tables)));
        let compiled = vrl::compiler::compile(SOURCE, &functions)
            .map_err(|wrong| anyhow!("enrich.vrl: {}", vrl::diagnostic::Formatter::new(SOURCE, wrong)))?;
        // Whoever came first has set it.
        let _ = PROGRAM.set(Arc::new(compiled.program));
    }
    let program = PROGRAM.get().map(Arc::clone).ok_or_else(|| anyhow!("there is no program"))?;
    let mut runtime = Runtime::default();
    Ok(Box::new(move |alert| {
        let value: Value = serde_json::from_slice(alert)?;
        let mut target =
            TargetValue { value, metadata: Value::Object(Default::default()), secrets: Secrets::default() };
        runtime.resolve(&mut target, &program, &TimeZone::default()).map_err(|wrong| anyhow!("{wrong}"))?;
        runtime.clear();
        Ok(serde_json::to_vec(&target.value)?)
    }))
}
