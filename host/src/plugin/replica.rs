//! The pipeline that a host runs, made a second time in a process of that host: the same versions of the same plugins, by their
//! digests. The host has checked them and compared them with their grants; here they are taken as it found them. Nothing is watched,
//! judged or kept.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::compiler::{CompileError, Compiler, read_bounded};
use super::loader::Loader;
use super::versions::Versions;
use super::{MAX_COMPONENT, PluginsError};
use crate::config::{Config, StepConfig};
use crate::digest::sha256_hex;
use crate::pipeline::{Cast, LoadedStep, Pipeline};
use crate::telemetry::Telemetry;

/// Why the pipeline cannot be made again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplicaError {
    /// No plugin at all can be run.
    #[error(transparent)]
    Plugins(#[from] PluginsError),
    /// One step cannot be made again.
    #[error("step \"{step}\": {why}")]
    Step {
        /// The step.
        step: String,
        /// What is wrong.
        why: CompileError,
    },
}

/// Makes the pipeline of a host with this configuration again.
///
/// # Errors
/// [`ReplicaError`].
pub(crate) async fn pipeline(
    config: &Arc<Config>,
    cast: &[Cast],
    telemetry: Arc<Telemetry>,
) -> Result<Pipeline, ReplicaError> {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("dossier"));
    let compiler = Compiler::beside(&config.host.state_dir, program, Arc::clone(&telemetry));
    let loader = Loader::new(Arc::clone(config), compiler, telemetry)?;
    let mut steps = Vec::with_capacity(cast.len());
    for Cast { step, plugin, sha256 } in cast {
        let named = config.steps.iter().find(|named| named.name == *step && named.plugin == *plugin);
        let step_config = named.cloned().unwrap_or_else(|| StepConfig::unnamed(plugin));
        steps.push(match sha256 {
            None => LoadedStep::absent(step_config),
            Some(sha256) => {
                let (from, name, digest) = (Arc::clone(config), plugin.clone(), sha256.clone());
                let file = move || file(&from, &name, &digest);
                let loaded = loader.load_same(step_config, sha256, file).await;
                loaded.map_err(|why| ReplicaError::Step { step: step.clone(), why })?
            }
        });
    }
    Ok(Pipeline::new(steps))
}

/// Looks for the file with this digest where the host may have it from. Blocks.
fn file(config: &Config, plugin: &str, sha256: &str) -> Result<Bytes, CompileError> {
    let there = read_bounded(&config.plugins.dir.join(format!("{plugin}.wasm")), MAX_COMPONENT).ok();
    let last_good = || Versions::of(&config.host.state_dir).last_good(plugin);
    let right = |bytes: &Vec<u8>| sha256_hex(bytes) == sha256;
    let bytes = there.filter(right).or_else(|| last_good().filter(right)).map(Bytes::from);
    bytes.ok_or_else(|| {
        CompileError::Failed(format!(
            "the version of \"{plugin}\" that serves ({sha256:.12}) is neither in the plugins folder nor compiled in state_dir; \
             put its file back, or restart the host"
        ))
    })
}
