//! Memory for plugins: an arena inside the initial memory first, then whatever the host's limit lets the memory grow to.
//!
//! The standard allocator begins with growing the memory, and growing costs more than the rest of a small call. The arena
//! is a zeroed static, so that it is not part of the file and a fresh instance pays only for the pages that it touches.

#![cfg(target_arch = "wasm32")]
#![allow(
    unsafe_code,
    reason = "an allocator hands out raw memory; the crate talc does it, and is told where memory is"
)]

use std::alloc::Layout;
use std::cell::UnsafeCell;

use talc::base::{CHUNK_UNIT, Talc, binning::Binning};
use talc::cell::TalcSyncCell;
use talc::source::Source;
use talc::wasm::WasmBinning;

/// Enough for an alert's observables, rows and answer in most plugins.
const ARENA: usize = 48 * 1024;
const PAGE: usize = 64 * 1024;

#[repr(align(16))]
struct Arena(UnsafeCell<[u8; ARENA]>);
// SAFETY: the target has no threads, and only the allocator touches the arena.
unsafe impl Sync for Arena {}
static MEMORY: Arena = Arena(UnsafeCell::new([0; ARENA]));

#[global_allocator]
static ALLOCATOR: TalcSyncCell<ArenaThenGrow, WasmBinning> = TalcSyncCell::new_wasm(ArenaThenGrow::Untouched);

/// Where the allocator's memory comes from, in this order.
#[derive(Debug)]
enum ArenaThenGrow {
    /// Nothing was asked for yet.
    Untouched,
    /// The arena is in use.
    Arena,
    /// The memory was grown; the end of what was got.
    Grown(std::ptr::NonNull<u8>),
}

// SAFETY: it allocates nothing and reaches the allocator only through `talc`.
unsafe impl Source for ArenaThenGrow {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        if matches!(talc.source, Self::Untouched) {
            talc.source = Self::Arena;
            // SAFETY: nobody else uses the arena.
            if unsafe { talc.claim(MEMORY.0.get().cast(), ARENA) }.is_some() {
                return Ok(());
            }
        }
        // What a request takes at most beyond its size: the chunk's own words and, for the alignment, itself.
        let bytes = layout.size().checked_add(layout.align() + 4 * CHUNK_UNIT).ok_or(())?;
        let pages = bytes.div_ceil(PAGE);
        let before = std::arch::wasm32::memory_grow::<0>(pages);
        if before == usize::MAX {
            return Err(());
        }
        let base = std::ptr::without_provenance_mut::<u8>(before * PAGE);
        let end = base.wrapping_add(pages * PAGE);
        // SAFETY: these pages are new, and only the allocator grows the memory; so what it grew last ends where they begin.
        let end = match talc.source {
            Self::Grown(last) if last.as_ptr() == base => Some(unsafe { talc.extend(last, end) }),
            _ => unsafe { talc.claim(base, pages * PAGE) },
        };
        talc.source = Self::Grown(end.ok_or(())?);
        Ok(())
    }
}
