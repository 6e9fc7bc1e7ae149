//! The host, as native tests imitate it: see [`crate::testing`].

pub(crate) use crate::testing::{log, lookup, send, send_all, table_text};
