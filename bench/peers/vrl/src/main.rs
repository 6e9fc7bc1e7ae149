//! The same four look-ups in VRL, Vector's language, in the floor's loop: `peer-vrl URL FOLDER`. The tables are in memory, and the
//! program finds rows in them with one function. Every core has a worker.

#[path = "../../../src/stream.rs"]
mod stream;
mod tables;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use vrl::compiler::{Program, TargetValue, TimeZone, runtime::Runtime};
use vrl::value::{Secrets, Value};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("the first argument is the server's URL")?;
    let folder = arguments.next().context("the second argument is the folder of tables")?;
    let tables = Arc::new(tables::Tables::load(Path::new(&folder))?);
    let mut functions = vrl::stdlib::all();
    functions.push(Box::new(tables::Row(tables)));
    let compiled = vrl::compiler::compile(include_str!("enrich.vrl"), &functions).map_err(|wrong| {
        anyhow!("enrich.vrl: {}", vrl::diagnostic::Formatter::new(include_str!("enrich.vrl"), wrong))
    })?;
    let program = Arc::new(compiled.program);
    let cores = std::thread::available_parallelism()?.get();
    let worker = |_| {
        let (program, mut runtime) = (Arc::clone(&program), Runtime::default());
        move |alert: Vec<u8>| record(&program, &mut runtime, &alert)
    };
    stream::run(&url, (0..cores).map(worker).collect())
}

fn record(program: &Program, runtime: &mut Runtime, alert: &[u8]) -> Result<Vec<u8>> {
    let value: Value = serde_json::from_slice(alert)?;
    let mut target = TargetValue { value, metadata: Value::Object(Default::default()), secrets: Secrets::default() };
    runtime.resolve(&mut target, program, &TimeZone::default()).map_err(|wrong| anyhow!("{wrong}"))?;
    runtime.clear();
    Ok(serde_json::to_vec(&target.value)?)
}
