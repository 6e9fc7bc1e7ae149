//! The host, as a component reaches it.

pub(crate) use crate::bindings::dossier::plugin::{
    http::{send, send_all},
    log::log,
    tables::{lookup, text as table_text},
};
