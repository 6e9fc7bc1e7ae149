//! What the end-to-end tests share: servers and hosts of their own, started as processes and killed as such.

pub mod alerts;
pub mod author;
pub mod collector;
pub mod guest;
pub mod happened;
pub mod host;
pub mod not_run;
pub mod page;
pub mod prometheus;
pub mod proxy;
pub mod python;
pub mod redis_server;
pub mod shell;
pub mod threat_api;
pub mod tmux;
