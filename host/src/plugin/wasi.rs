//! The empty world for components that import `wasi:*`, as those of JavaScript, Python and C toolchains do: no folders, no
//! variables, no arguments, no sockets, nothing to read. What they print is kept for the log. Clocks and random numbers begin
//! anew with each call, and waiting takes no time, so that the same alert has the same result in every instance.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamError, subscribe};
use wasmtime_wasi::{Deterministic, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::host_calls::State;

/// What may be printed before it is looked at, in bytes.
const MAX_PRINTED: usize = 64 << 10;

/// Handles of `wasi:*` that a component may hold at once: its three streams and what it waits for.
const MAX_HANDLES: usize = 256;

/// Random bytes that one host call may ask for: a seed (Python takes 2,496 bytes), not a flood. Host calls of `wasi:*` cost no
/// fuel of their own, so this is also what a loop of them can make the host compute between two of its turns.
const MAX_RANDOM: u64 = 4 << 10;

/// How far the clock moves when it is looked at, in nanoseconds. One that stands still makes some runtimes wait for ever.
const TICK: u64 = 1_000;

/// The world of one instance.
pub(super) struct Wasi {
    context: WasiCtx,
    handles: ResourceTable,
    printed: Printed,
    /// What the monotonic clock shows, in nanoseconds.
    time: u64,
}

impl Default for Wasi {
    fn default() -> Self {
        let printed = Printed::default();
        let mut handles = ResourceTable::new();
        handles.set_max_capacity(MAX_HANDLES);
        Self { context: context(&printed), handles, printed, time: 0 }
    }
}

/// A world in which nothing has happened yet.
fn context(printed: &Printed) -> WasiCtx {
    let bytes: Vec<u8> = (0..=255).collect();
    WasiCtxBuilder::new()
        .stdout(printed.clone())
        .stderr(printed.clone())
        .secure_random(Deterministic::new(bytes.clone()))
        .insecure_random(Deterministic::new(bytes))
        .insecure_random_seed(0)
        .max_random_size(MAX_RANDOM)
        .wall_clock(Stopped)
        // Components see `Clock`; should anything else ask, then not the machine's.
        .monotonic_clock(Stopped)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

impl Wasi {
    /// What was printed since the last time, and whether there was more than is kept.
    pub(super) fn take_printed(&mut self) -> (Vec<u8>, bool) {
        std::mem::take(&mut *self.printed.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts clock and random numbers back to their beginning. Called before each alert; the handles that an instance which is
    /// kept holds stay good.
    pub(super) fn rewind(&mut self) {
        self.context = context(&self.printed);
        self.time = 0;
    }

    /// Whether the component holds a handle. Its number would mean nothing in a copy of the component's memory.
    pub(super) fn is_held(&self) -> bool {
        !self.handles.is_empty()
    }
}

/// Offers the empty world to a component.
///
/// # Errors
/// None in practice: a name defined twice.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    // wasmtime's own waits for real time, and how much work fits into a wait is a clock.
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<State, Clock<'static>>(linker, |state| Clock(state.wasi.get_or_insert_default()))?;
    linker.allow_shadowing(false);
    Ok(())
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi.get_or_insert_default();
        WasiCtxView { ctx: &mut wasi.context, table: &mut wasi.handles }
    }
}

/// A clock that moves by being looked at and by being waited for. Whoever waits goes on at once and finds that the time has
/// passed.
struct Clock<'a>(&'a mut Wasi);

impl HasData for Clock<'static> {
    type Data<'a> = Clock<'a>;
}

impl Clock<'_> {
    fn passed(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let passed = self.0.handles.push(Passed)?;
        subscribe(&mut self.0.handles, passed)
    }
}

impl monotonic_clock::Host for Clock<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.0.time = self.0.time.saturating_add(TICK);
        Ok(self.0.time)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(TICK)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.0.time = self.0.time.max(when);
        self.passed()
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.0.time = self.0.time.saturating_add(duration);
        self.passed()
    }
}

/// A moment that has come.
struct Passed;

#[async_trait::async_trait]
impl Pollable for Passed {
    async fn ready(&mut self) {}
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

impl HostMonotonicClock for Stopped {
    fn resolution(&self) -> u64 {
        TICK
    }

    fn now(&self) -> u64 {
        0
    }
}

/// What was printed, and whether something was left out. Always ready, so that no result depends on when something was written.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<(Vec<u8>, bool)>>);

impl Printed {
    fn take(&self, bytes: &[u8]) {
        let mut printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_PRINTED - printed.0.len();
        let kept = &bytes[..bytes.len().min(room)];
        printed.0.extend_from_slice(kept);
        printed.1 |= kept.len() < bytes.len();
    }
}

#[async_trait::async_trait]
impl OutputStream for Printed {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(MAX_PRINTED)
    }
}

#[async_trait::async_trait]
impl Pollable for Printed {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Printed {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take(bytes);
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

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}
