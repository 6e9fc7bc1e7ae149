//! The benchmark: takes the same alerts through dossier and through what it is compared with. The program over it is in
//! `main.rs`, the micro-benchmarks are in `benches/`; both are started by `cargo xtask bench`.
//!
//! Each row is measured as a process of its own, which [`measure`] starts and watches from outside. It is several programs in one for
//! that: [`floor`], [`native`] and [`peer`] are rows. Nothing of it is in dossier itself.

pub mod alerts;
pub mod floor;
pub mod latency;
pub mod measure;
pub mod native;
pub mod peer;
pub mod place;
pub mod process;
pub mod row;
pub mod scaling;
pub mod site;
pub mod stand;
pub mod stream;
pub mod targets;
pub mod throughput;
