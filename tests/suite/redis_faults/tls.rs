//! TLS and ACL.
