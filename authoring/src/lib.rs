#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics has failed"))]
//! What turns a plugin's source into a component that a host can load, and what a new plugin begins with. Runs on the
//! author's machine, at build time; it knows nothing of how a host runs what it makes.

pub mod build;
pub mod component;
pub mod language;
pub mod manifest;
pub mod outline;
pub mod template;
pub mod toolchain;
