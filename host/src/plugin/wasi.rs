//! The empty world for components that import `wasi:*`, as those of JavaScript and Python toolchains do: no folders, no
//! variables, no arguments, no sockets, nothing to read. What they print is kept for the log. Clocks and random numbers are
//! the same in every instance, so that the same alert has the same result.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{Deterministic, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::host_calls::State;

/// What may be printed before it is looked at, in bytes.
const MAX_PRINTED: usize = 64 << 10;

/// Handles that a component may hold at once.
const MAX_HANDLES: usize = 256;

/// Random bytes that one call may ask for: a key or a hash seed, not a flood.
const MAX_RANDOM: u64 = 64 << 10;

/// The world of one instance.
pub(super) struct Wasi {
    context: WasiCtx,
    handles: ResourceTable,
    printed: Printed,
}

impl Default for Wasi {
    fn default() -> Self {
        let printed = Printed::default();
        let mut handles = ResourceTable::new();
        handles.set_max_capacity(MAX_HANDLES);
        let bytes: Vec<u8> = (0..=255).collect();
        let context = WasiCtxBuilder::new()
            .stdout(printed.clone())
            .stderr(printed.clone())
            .secure_random(Deterministic::new(bytes.clone()))
            .insecure_random(Deterministic::new(bytes))
            .insecure_random_seed(0)
            .max_random_size(MAX_RANDOM)
            .wall_clock(Stopped)
            .monotonic_clock(Counter::default())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        Self { context, handles, printed }
    }
}

impl Wasi {
    /// What was printed since the last time, and whether there was more than is kept.
    pub(super) fn take_printed(&mut self) -> (Vec<u8>, bool) {
        std::mem::take(&mut *self.printed.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Offers the empty world to a component.
///
/// # Errors
/// None in practice: a name defined twice.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi.get_or_insert_default();
        WasiCtxView { ctx: &mut wasi.context, table: &mut wasi.handles }
    }
}

/// What was printed, and whether something was left out.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<(Vec<u8>, bool)>>);

impl AsyncWrite for Printed {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_PRINTED - printed.0.len();
        let kept = &bytes[..bytes.len().min(room)];
        printed.0.extend_from_slice(kept);
        printed.1 |= kept.len() < bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

/// A clock that stands at the beginning of 1970.
struct Stopped;

impl HostWallClock for Stopped {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

/// A clock that moves by being looked at: one that stands still makes some runtimes wait for ever.
#[derive(Default)]
struct Counter(AtomicU64);

impl HostMonotonicClock for Counter {
    fn resolution(&self) -> u64 {
        1_000
    }

    fn now(&self) -> u64 {
        self.0.fetch_add(1_000, Ordering::Relaxed)
    }
}
