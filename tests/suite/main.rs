//! Every end-to-end test in one binary: the real `dossier`, plugins built from source, a `redis-server` for each test.

mod admin;
mod authors;
mod bench;
mod contract;
mod crashes;
mod deploy;
mod docs;
mod end_to_end;
mod guests;
mod http;
mod languages;
mod ledger;
mod mix;
mod model;
mod operations;
mod plugin_faults;
mod plugins;
mod probation;
mod queues;
mod redis_faults;
mod redis_queue;
mod reload;
mod replays;
mod top;
mod tutorial;
