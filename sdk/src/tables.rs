//! Looking things up in the tables that the operator granted to the step. The tables live in the host.

use serde::de::DeserializeOwned;

pub use crate::bindings::dossier::plugin::tables::TableError;
use crate::{Failure, host};

/// The row with this key; none when no row has it. An IP address finds the row with the longest matching prefix, other
/// keys match exactly, without regard to ASCII case.
///
/// # Errors
/// [`Failure::Internal`] when the table is not granted to this step, or when the row has not the form of `T`; ask for a
/// [`serde_json::Value`] to take any row.
pub fn lookup<T: DeserializeOwned>(table: &str, key: &str) -> Result<Option<T>, Failure> {
    let Some(row) = raw(table, key)? else {
        return Ok(None);
    };
    serde_json::from_str(&row).map(Some).map_err(|error| {
        Failure::internal(format!("table \"{table}\": row of \"{key}\" has an unexpected form: {error}"))
    })
}

/// As [`lookup`], as JSON text: to pass a row on as it stands, or to take a few columns of it with [`Object`](crate::Object),
/// which makes nothing of the others.
///
/// # Errors
/// [`TableError::Denied`] when the table is not granted to this step.
pub fn raw(table: &str, key: &str) -> Result<Option<String>, TableError> {
    host::lookup(table, key)
}

/// What stands at a JSON pointer in the row with this key, as plain text, as in `text("assets", "dc01", "/owner")`; none when
/// no row has the key, or there is no string, number or boolean. Cheaper than [`lookup`]: nothing is parsed in the plugin.
///
/// # Errors
/// [`TableError::Denied`] when the table is not granted to this step.
pub fn text(table: &str, key: &str, pointer: &str) -> Result<Option<String>, TableError> {
    host::table_text(table, key, pointer)
}
