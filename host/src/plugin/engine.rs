//! wasmtime's settings, and the one engine with its pool. Everything that must be the same where code is compiled and
//! where it runs stands in [`settings`].

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wasmtime::{Config as Settings, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::limits;
use crate::config::{Config, Limits};

/// The most instances that the pool holds. Each reserves 8 GiB of address space (not memory), of which there are 128 TiB.
const MAX_INSTANCES: usize = 1024;

/// The least, so that a small configuration does not make calls wait for one another.
const MIN_INSTANCES: usize = 16;

/// Instances that lie idle between alerts, of all steps with `reuse` together.
const MAX_IDLE: usize = 64;

/// The largest linear memory that wasm can have.
const MAX_MEMORY: usize = 1 << 32;

/// How much of an instance's memory stays with its slot and is wiped in place: faster than to give it back and fault it
/// in again. With `PAGEMAP_SCAN` only pages that were touched are wiped.
const KEEP_RESIDENT: usize = 1 << 20;

/// The engine, and who may use it when.
pub(super) struct Sandbox {
    /// wasmtime's engine.
    pub engine: Engine,
    /// One for each instance that may run at once: a call waits for one, so that the pool is never found empty.
    pub running: Arc<Semaphore>,
    /// Calls that compute at the same time: more of them would only take each other's time, and a burst of alerts would end
    /// as time-outs. A call that waits for HTTP gives its turn up meanwhile.
    pub computing: Arc<Semaphore>,
    /// One for each instance that may lie idle, or did and serves again.
    pub idle: Arc<Semaphore>,
    size: Size,
}

/// What the pool is made for.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Instances that run at once.
    running: usize,
    /// The largest memory that one may have, in bytes.
    memory: usize,
}

impl Size {
    fn of(config: &Config) -> Self {
        let running = config.host.in_flight.saturating_mul(config.steps.len().max(1));
        let memory = config.steps.iter().map(|step| step.limits.memory).chain([Limits::default().memory]).max();
        Self { running: running.clamp(MIN_INSTANCES, MAX_INSTANCES), memory: memory.unwrap_or_default() }
    }
}

/// What compiled code depends on.
fn settings() -> Settings {
    let mut settings = Settings::new();
    settings
        .consume_fuel(true)
        .concurrency_support(false)
        .wasm_gc(false)
        .wasm_exceptions(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        // The same alert has the same result on every machine.
        .relaxed_simd_deterministic(true)
        .cranelift_nan_canonicalization(true)
        .max_wasm_stack(512 << 10)
        .async_stack_size(1 << 20);
    settings
}

/// The engine of the process that compiles and configures: no pool; wasmtime is built without its parallel compiler, so it takes
/// one thread.
///
/// # Errors
/// wasmtime does not support this machine.
pub(super) fn for_compiling() -> wasmtime::Result<Engine> {
    Engine::new(&settings())
}

impl Sandbox {
    /// The engine for a configuration.
    ///
    /// # Errors
    /// wasmtime does not support this machine, or there is not enough address space (`ulimit -v`).
    pub(super) fn new(config: &Config) -> wasmtime::Result<Self> {
        let size = Size::of(config);
        let Size { running, memory } = size;
        let total = u32::try_from(running + MAX_IDLE)?;
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(total)
            .total_core_instances(total * limits::CORE_INSTANCES)
            .total_memories(total * limits::MEMORIES)
            .total_tables(total * limits::TABLES)
            .total_stacks(total)
            .total_gc_heaps(0)
            .max_core_instances_per_component(limits::CORE_INSTANCES)
            .max_memories_per_component(limits::MEMORIES)
            .max_tables_per_component(limits::TABLES)
            .max_tables_per_module(limits::TABLES)
            .max_memories_per_module(limits::MEMORIES)
            .table_elements(limits::TABLE_ELEMENTS)
            .max_memory_size(memory.next_multiple_of(64 << 10).min(MAX_MEMORY))
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(64 << 10)
            .pagemap_scan(Enabled::Auto);
        let mut settings = settings();
        settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        Ok(Self {
            engine: Engine::new(&settings)?,
            running: Arc::new(Semaphore::new(running)),
            computing: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from))),
            idle: Arc::new(Semaphore::new(MAX_IDLE)),
            size,
        })
    }

    /// Whether it is large enough for another configuration, so that no second pool is needed beside it.
    pub(super) fn fits(&self, config: &Config) -> bool {
        let needed = Size::of(config);
        needed.running <= self.size.running && needed.memory <= self.size.memory
    }

    /// What code must have been compiled for to run here, as hexadecimal digits.
    pub(super) fn compatibility(&self) -> String {
        let mut hasher = Sha256Hasher(Sha256::new());
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        hex::encode(hasher.0.finalize())
    }
}

/// SHA-256 as a [`Hasher`]: the standard one promises no stable result.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        // Not used: the whole digest is taken.
        0
    }
}
