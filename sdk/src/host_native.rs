//! The host, as native tests imitate it: see [`crate::testing`].

pub(crate) use crate::testing::{field, log, lookup, send};
