//! A connection that is made when it is needed and made again when it is of no use; scripts that are loaded when the server
//! does not know them. What an error means stands in `reaction.rs`, where the server is in `address.rs`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::BufMut as _;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisResult, RedisWrite, Script, Value};

use super::address::Address;
use super::reaction::{self, Reaction, Sign};
use super::reply;
use crate::config::RedisConfig;
use crate::queue::QueueError;

/// How long making a connection may take, name resolution and greeting included.
const CONNECT: Duration = Duration::from_secs(3);

/// A connection to one server.
pub(super) struct Link {
    address: Address,
    timeout: Duration,
    open: Mutex<Option<MultiplexedConnection>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address knows the password.
        f.debug_struct("Link").field("place", &self.place()).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Link {
    /// A link that waits so long for an answer. Does not connect yet.
    ///
    /// # Errors
    /// [`QueueError::Broken`] when the configuration says no place, or files that cannot be read.
    pub(super) fn new(redis: &RedisConfig, timeout: Duration) -> Result<Self, QueueError> {
        Ok(Self { address: Address::new(redis)?, timeout, open: Mutex::new(None) })
    }

    /// Where the server is, without a password.
    pub(super) fn place(&self) -> &str {
        self.address.place()
    }

    /// Whether it goes to whichever node of a Cluster owns the stream.
    pub(super) fn is_cluster(&self) -> bool {
        self.address.is_cluster()
    }

    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(open) = open {
            return Ok(open);
        }
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(self.timeout));
        let client = Client::open(self.address.find().await?)?;
        let mut made = client.get_multiplexed_async_connection_with_config(&config).await?;
        if self.address.must_be_primary() {
            let role = redis::cmd("ROLE").query_async::<Value>(&mut made).await?;
            let role = reply::list(role).and_then(|role| reply::text(role.into_iter().next()?));
            if role.as_deref() != Some("master") {
                return Err((ErrorKind::Io, "the Sentinels name a server that is no primary").into());
            }
        }
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(made.clone());
        Ok(made)
    }

    /// Gives the connection up; the next command makes a new one.
    pub(super) fn forget(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Sends a command as it is; the connection is given up when the error says that it is of no use.
    pub(super) async fn query(&self, command: &Cmd) -> RedisResult<Value> {
        let answer = async { command.query_async(&mut self.connection().await?).await }.await;
        if let Err(error) = &answer
            && reaction::of(error).reaction == Reaction::Reconnect
        {
            self.forget();
        }
        answer
    }

    /// Sends commands together; none of them gives its answer.
    pub(super) async fn pipeline(&self, pipeline: &redis::Pipeline) -> RedisResult<()> {
        let answer = async { pipeline.query_async(&mut self.connection().await?).await }.await;
        if let Err(error) = &answer
            && reaction::of(error).reaction == Reaction::Reconnect
        {
            self.forget();
        }
        answer
    }

    /// Runs a script, which is loaded first where the server does not have it.
    pub(super) async fn run(&self, call: &Call) -> RedisResult<Value> {
        match self.query(&call.command).await {
            Err(error) if reaction::of(&error).reaction == Reaction::LoadScript => {
                self.query(redis::cmd("SCRIPT").arg("LOAD").arg(call.source)).await?;
                self.query(&call.command).await
            }
            answer => answer,
        }
    }

    /// The error that a caller gets.
    pub(super) fn error(&self, error: &redis::RedisError) -> QueueError {
        self.error_of(reaction::of(error), &reaction::words(error))
    }

    /// The same of a row of the table and what the server said.
    pub(super) fn error_of(&self, row: &reaction::Row, said: &str) -> QueueError {
        match row.error(self.place(), said) {
            // There is one address, and it will never be another.
            QueueError::Unavailable(said) if row.sign == Sign::Code("MOVED") && !self.address.is_cluster() => {
                QueueError::Broken(said)
            }
            error => error,
        }
    }

    /// An answer that is not what was asked for: another version than any that we know.
    pub(super) fn nonsense(&self, what: &str) -> QueueError {
        QueueError::Broken(format!("redis at {}: the answer to {what} makes no sense", self.place()))
    }
}

/// A script with its source, to be loaded when the server does not have it.
pub(super) struct Source {
    text: &'static str,
    hash: String,
}

impl Source {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, hash: Script::new(text).get_hash().to_owned() }
    }
}

/// One call of a script.
pub(super) struct Call {
    command: Cmd,
    source: &'static str,
}

impl Call {
    pub(super) fn new(source: &Source, keys: &[&str]) -> Self {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&source.hash).arg(keys.len()).arg(keys);
        Self { command, source: source.text }
    }

    pub(super) fn arg(mut self, argument: impl redis::ToRedisArgs) -> Self {
        self.command.arg(argument);
        self
    }

    pub(super) fn push(&mut self, argument: impl redis::ToRedisArgs) {
        self.command.arg(argument);
    }

    /// Makes room for so many more arguments of so many bytes together.
    pub(super) fn reserve(&mut self, arguments: usize, bytes: usize) {
        self.command.reserve_space_for_args(std::iter::once(bytes).chain(std::iter::repeat_n(0, arguments)));
    }

    /// One argument from its parts, each copied once.
    pub(super) fn push_parts(&mut self, parts: &[&[u8]]) {
        let mut argument = self.command.bufmut_for_next_arg(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| argument.put_slice(part));
    }
}
