//! What each of Redis' errors means for the host: one table.

use redis::{ErrorKind, RedisError};

use crate::queue::QueueError;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// It passes: the caller tries again later, on the same connection.
    Wait,
    /// The same on a new connection, for this one is of no use or leads to the wrong server.
    Reconnect,
    /// The stream or its group is gone: make it again and repeat.
    MakeGroup,
    /// The server forgot the script: load it and repeat.
    LoadScript,
    /// Somebody must mend something first.
    Mend,
}

/// The table. `code` is the first word of a server's error, `text` the rest.
pub(super) fn to_code(code: &str, text: &str) -> Reaction {
    match code {
        "NOSCRIPT" => Reaction::LoadScript,
        "NOGROUP" => Reaction::MakeGroup,
        // A blocked read says so when the stream is deleted under it, or when the server became a replica.
        "UNBLOCKED" if text.contains("no longer exists") => Reaction::MakeGroup,
        "UNBLOCKED" | "READONLY" => Reaction::Reconnect,
        "LOADING" | "OOM" | "MISCONF" | "BUSY" | "NOREPLICAS" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN" => {
            Reaction::Wait
        }
        "ERR" if text.contains("max number of clients") => Reaction::Reconnect,
        // MOVED, ASK and CROSSSLOT: a Cluster, and the stream's name has no hash tag or the URL names the wrong node.
        "WRONGTYPE" | "NOAUTH" | "WRONGPASS" | "NOPERM" | "NOPROTO" | "MOVED" | "ASK" | "CROSSSLOT" | "ERR" => {
            Reaction::Mend
        }
        _ => Reaction::Wait,
    }
}

/// The same for what the client says.
pub(super) fn to(error: &RedisError) -> Reaction {
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse => Reaction::Reconnect,
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::UnexpectedReturnType => {
            Reaction::Mend
        }
        _ => to_code(error.code().unwrap_or(""), error.detail().unwrap_or("")),
    }
}

/// The error that the caller gets. `place` names the server without its password.
pub(super) fn error(reaction: Reaction, place: &str, said: &str) -> QueueError {
    let hint = match said.split([' ', ':']).next().unwrap_or("").trim_matches('"') {
        "OOM" => "; raise maxmemory, or set [store] retention",
        "MISCONF" => "; the server cannot write to its disk: make room",
        "WRONGTYPE" => "; a key of the queue holds something else: rename it, or choose another stream",
        "NOAUTH" | "WRONGPASS" => "; set user and password in the url of [queue]",
        "MOVED" | "ASK" | "CROSSSLOT" => "; in a Cluster the stream's name needs a hash tag, as in \"{alerts}\"",
        _ => "",
    };
    let message = format!("redis at {place}: {}{hint}", said.trim());
    match reaction {
        Reaction::Mend => QueueError::Broken(message),
        _ => QueueError::Unavailable(message),
    }
}

/// An error in the server's own words where it has any.
pub(super) fn words(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_must_be_mended() {
        for code in ["LOADING", "OOM", "MISCONF", "CLUSTERDOWN", "NEVERSEEN"] {
            assert!(matches!(error(to_code(code, ""), "x", code), QueueError::Unavailable(_)), "{code}");
        }
        for code in ["WRONGTYPE", "NOAUTH", "NOPERM", "MOVED", "ERR"] {
            assert!(matches!(error(to_code(code, ""), "x", code), QueueError::Broken(_)), "{code}");
        }
        assert_eq!(to_code("READONLY", ""), Reaction::Reconnect);
        assert_eq!(to_code("NOGROUP", ""), Reaction::MakeGroup);
        assert_eq!(to_code("UNBLOCKED", "the stream key no longer exists"), Reaction::MakeGroup);
        assert_eq!(to_code("UNBLOCKED", "force unblock from blocking operation"), Reaction::Reconnect);
    }
}
