//! The host's log: bounded, and each line appears with the step and the alert.

use crate::bindings::dossier::plugin::log::Level;
use crate::host;

/// For whoever writes the plugin.
pub fn debug(message: &str) {
    host::log(Level::Debug, message);
}

/// For whoever runs it.
pub fn info(message: &str) {
    host::log(Level::Info, message);
}

/// Something is odd.
pub fn warn(message: &str) {
    host::log(Level::Warn, message);
}

/// Something is wrong.
pub fn error(message: &str) {
    host::log(Level::Error, message);
}
