//! Every end-to-end test in one binary: the real `dossier`, plugins built from source, a `redis-server` for each test.

mod authors;
mod bench;
mod contract;
mod end_to_end;
mod guests;
mod http;
mod languages;
mod operations;
mod plugin_faults;
mod plugins;
mod probation;
mod queues;
mod redis_queue;
mod tutorial;
