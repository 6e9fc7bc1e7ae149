//! What each thing that can go wrong with Redis means for the host: one table, [`TABLE`].
//!
//! The table decides; `link.rs`, `commit.rs` and `redis.rs` do it. Every reaction but [`Reaction::MakeGroup`] and
//! [`Reaction::LoadScript`] is an error for the caller too, who tells of it (an alarm, and not ready), stops reading while
//! commits are refused, and tries again with growing pauses.

use redis::{ErrorKind, RedisError};

use crate::queue::QueueError;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// It passes: the caller tries again later, on the same connection.
    Wait,
    /// The same on a new connection to a server that is looked for anew: this one is of no use, or leads to the wrong server.
    Reconnect,
    /// The stream or its group is gone: make it again, at 0, raise an alarm, and repeat.
    MakeGroup,
    /// The server forgot the script: load it and repeat.
    LoadScript,
    /// Somebody must mend something first. What is in flight waits for it; a host that cannot read ends.
    Mend,
}

/// How trouble shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// No answer in time. The server may have done what it was asked, or do it yet.
    Silence,
    /// Nobody listens there.
    Refused,
    /// The connection was closed, reset, or could not be made.
    Cut,
    /// An answer that is not Redis' protocol.
    Garbled,
    /// The client cannot do what the settings want.
    Settings,
    /// The first word of a server's error.
    Code(&'static str),
    /// The first word, and what else it says.
    Says(&'static str, &'static str),
    /// An error that nobody has heard of.
    Unknown,
}

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub sign: Sign,
    pub reaction: Reaction,
    /// What people can do about it, or nothing.
    hint: &'static str,
}

const fn row(sign: Sign, reaction: Reaction, hint: &'static str) -> Row {
    Row { sign, reaction, hint }
}

/// The table. The first row that fits counts.
pub(super) static TABLE: [Row; 30] = {
    use Reaction::{LoadScript, MakeGroup, Mend, Reconnect, Wait};
    use Sign::{Code, Cut, Garbled, Refused, Says, Settings, Silence, Unknown};
    const CREDENTIALS: &str = "; set user and password in the url of [queue]";
    const CLUSTER: &str = "; name nodes of a Cluster as redis+cluster://host:port,host:port";
    const HASH_TAG: &str = "; in a Cluster the stream's name needs a hash tag, as in \"{alerts}\"";
    const DISK: &str = "; the server cannot write to its disk: make room";
    const OTHER_TYPE: &str = "; a key of the queue holds something else: rename it, or choose another stream";
    [
        // The connection.
        row(Silence, Reconnect, ""),
        row(Refused, Reconnect, ""),
        row(Cut, Reconnect, ""),
        row(Garbled, Reconnect, ""),
        row(Says("ERR", "max number of clients"), Reconnect, "; raise maxclients"),
        // Another server is the right one.
        row(Code("READONLY"), Reconnect, "; this server is a replica"),
        row(Code("MASTERDOWN"), Reconnect, "; this server is a replica"),
        row(Code("MOVED"), Reconnect, CLUSTER),
        // A blocked read says so when the stream is deleted under it, or when the server became a replica.
        row(Says("UNBLOCKED", "no longer exists"), MakeGroup, ""),
        row(Code("UNBLOCKED"), Reconnect, ""),
        // It passes. While a slot of a Cluster moves, its keys are half here and half there.
        row(Code("LOADING"), Wait, ""),
        row(Code("BUSY"), Wait, ""),
        row(Code("OOM"), Wait, "; raise maxmemory, or set [store] retention"),
        row(Code("MISCONF"), Wait, DISK),
        row(Code("NOREPLICAS"), Wait, "; too few replicas follow: see min-replicas-to-write"),
        row(Code("CLUSTERDOWN"), Wait, ""),
        row(Code("TRYAGAIN"), Wait, ""),
        row(Code("ASK"), Wait, ""),
        row(Says("ERR", "non local key"), Wait, ""),
        // What the server lost can be made again.
        row(Code("NOGROUP"), MakeGroup, ""),
        row(Code("NOSCRIPT"), LoadScript, ""),
        // Somebody must mend it.
        row(Code("WRONGTYPE"), Mend, OTHER_TYPE),
        row(Code("NOAUTH"), Mend, CREDENTIALS),
        row(Code("WRONGPASS"), Mend, CREDENTIALS),
        row(Code("NOPERM"), Mend, "; docs/reliability.md names what the user must be allowed"),
        row(Code("NOPROTO"), Mend, ""),
        row(Code("CROSSSLOT"), Mend, HASH_TAG),
        row(Settings, Mend, ""),
        row(Code("ERR"), Mend, ""),
        row(Unknown, Wait, ""),
    ]
};

/// The row of a server's error: its first word, and the rest.
pub(super) fn of_code(code: &str, text: &str) -> &'static Row {
    let fits = |row: &&Row| match row.sign {
        Sign::Code(other) => other == code,
        Sign::Says(other, words) => other == code && text.contains(words),
        _ => false,
    };
    TABLE.iter().find(fits).unwrap_or_else(|| of_sign(Sign::Unknown))
}

/// The row of what the client says.
pub(super) fn of(error: &RedisError) -> &'static Row {
    match error.kind() {
        ErrorKind::Io if error.is_timeout() => of_sign(Sign::Silence),
        ErrorKind::Io if error.is_connection_refusal() => of_sign(Sign::Refused),
        ErrorKind::Io => of_sign(Sign::Cut),
        ErrorKind::Parse => of_sign(Sign::Garbled),
        ErrorKind::AuthenticationFailed => of_code("WRONGPASS", ""),
        ErrorKind::InvalidClientConfig | ErrorKind::UnexpectedReturnType => of_sign(Sign::Settings),
        _ => of_code(error.code().unwrap_or(""), error.detail().unwrap_or("")),
    }
}

/// The row of a sign that has no words; the last one where there is none.
fn of_sign(sign: Sign) -> &'static Row {
    TABLE.iter().find(|row| row.sign == sign).unwrap_or(&TABLE[TABLE.len() - 1])
}

impl Row {
    /// The error that the caller gets. `place` names the server without its password.
    pub(super) fn error(&self, place: &str, said: &str) -> QueueError {
        let message = format!("redis at {place}: {}{}", said.trim(), self.hint);
        match self.reaction {
            Reaction::Mend => QueueError::Broken(message),
            _ => QueueError::Unavailable(message),
        }
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
    use std::io;

    use super::*;

    /// An error as a server or the network causes it.
    fn cause(sign: Sign) -> RedisError {
        let server = |text: &str| {
            let value = redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap();
            value.extract_error().unwrap_err()
        };
        match sign {
            Sign::Silence => io::Error::from(io::ErrorKind::TimedOut).into(),
            Sign::Refused => io::Error::from(io::ErrorKind::ConnectionRefused).into(),
            Sign::Cut => io::Error::from(io::ErrorKind::ConnectionReset).into(),
            Sign::Garbled => (ErrorKind::Parse, "nonsense").into(),
            Sign::Settings => (ErrorKind::InvalidClientConfig, "no such thing").into(),
            Sign::Code(code) => server(&format!("{code} some words")),
            Sign::Says(code, words) => server(&format!("{code} the server says {words} and more")),
            Sign::Unknown => server("NEVERSEEN some words"),
        }
    }

    #[test]
    fn every_row_is_found_by_the_error_that_it_is_for() {
        for row in &TABLE {
            let error = cause(row.sign);
            assert_eq!(of(&error), row, "{error}");
            let told = row.error("here", &words(&error));
            assert_eq!(matches!(told, QueueError::Broken(_)), row.reaction == Reaction::Mend, "{told}");
            assert!(told.to_string().starts_with("redis at here: ") && told.to_string().ends_with(row.hint), "{told}");
        }
    }

    #[test]
    fn no_row_is_there_twice_and_the_last_is_for_what_nobody_knows() {
        for (at, row) in TABLE.iter().enumerate() {
            assert!(TABLE[..at].iter().all(|before| before.sign != row.sign), "{row:?}");
        }
        assert_eq!(TABLE[TABLE.len() - 1].sign, Sign::Unknown);
    }

    #[test]
    fn what_is_promised_for_each_kind_of_trouble_is_in_the_table() {
        let reaction = |code, text| of_code(code, text).reaction;
        for code in ["LOADING", "OOM", "MISCONF", "CLUSTERDOWN", "TRYAGAIN", "ASK", "NOREPLICAS", "NEVERSEEN"] {
            assert_eq!(reaction(code, ""), Reaction::Wait, "{code}");
        }
        for code in ["READONLY", "MOVED", "MASTERDOWN"] {
            assert_eq!(reaction(code, ""), Reaction::Reconnect, "{code}");
        }
        for code in ["WRONGTYPE", "NOAUTH", "WRONGPASS", "NOPERM", "CROSSSLOT", "ERR"] {
            assert_eq!(reaction(code, ""), Reaction::Mend, "{code}");
        }
        assert_eq!(reaction("NOGROUP", ""), Reaction::MakeGroup);
        assert_eq!(reaction("NOSCRIPT", ""), Reaction::LoadScript);
        for sign in [Sign::Silence, Sign::Refused, Sign::Cut, Sign::Garbled] {
            assert_eq!(of_sign(sign).reaction, Reaction::Reconnect, "{sign:?}");
        }
    }
}
