//! The host, as a component reaches it.

pub(crate) use crate::bindings::dossier::plugin::{
    http::send,
    log::log,
    tables::{field, lookup},
};
