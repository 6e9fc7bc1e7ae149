//! dossier: takes security alerts from a queue, lets sandboxed WebAssembly plugins look things up, stores each alert with
//! its dossier, and only then lets go of the original.
//!
//! The modules follow the way of an alert: [`queue`] hands out deliveries, [`worker`] takes them, [`alert`] decodes them,
//! [`pipeline`] runs the steps (which are [`plugin`]s, looking into [`tables`]), and the queue commits the
//! [`record`] or the [`dead_letter`]. [`telemetry`] tells of it, [`admin`] shows it, [`cli`] is how people call it.

#![forbid(unsafe_op_in_unsafe_fn)]

#[macro_use]
mod failpoint;

/// Of every program that this library makes. What one thread allocates for an alert another frees once it is committed, some hundred times
/// for each: glibc's allocator has them wait for one another at that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

pub mod admin;
pub mod alert;
pub mod checkup;
pub mod cli;
pub mod config;
pub mod dead_letter;
pub mod digest;
pub mod json;
pub mod pipeline;
pub mod plugin;
pub mod queue;
pub mod record;
pub mod tables;
pub mod telemetry;
pub mod worker;
