//! A connection that is made when it is needed and made again when it is of no use; scripts that are loaded when the server
//! does not know them. What an error means stands in `reaction.rs`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, RedisResult, Script, Value};

use super::reaction::{self, Reaction};
use crate::queue::QueueError;

/// How long making a connection may take, name resolution and greeting included.
const CONNECT: Duration = Duration::from_secs(3);

/// How long the network may swallow packets before the connection counts as dead.
const SILENCE: Duration = Duration::from_secs(8);

/// A connection to one server.
pub(super) struct Link {
    client: Client,
    place: String,
    timeout: Duration,
    open: Mutex<Option<MultiplexedConnection>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client knows the password.
        f.debug_struct("Link").field("place", &self.place).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Link {
    /// A link that waits so long for an answer. Does not connect yet.
    ///
    /// # Errors
    /// [`QueueError::Broken`] when the URL is none; it is not repeated, for it may hold a password.
    pub(super) fn new(url: &str, timeout: Duration) -> Result<Self, QueueError> {
        let wrong = |_| {
            QueueError::Broken(
                "the url of [queue] is no Redis URL; write redis://[user:password@]host:port/db or unix:///path".into(),
            )
        };
        let keepalive =
            TcpKeepalive::new().with_time(Duration::from_secs(4)).with_interval(Duration::from_secs(2)).with_retries(2);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(SILENCE);
        let info = url.into_connection_info().map_err(wrong)?.set_tcp_settings(tcp);
        let place = info.addr().to_string();
        Ok(Self { client: Client::open(info).map_err(wrong)?, place, timeout, open: Mutex::new(None) })
    }

    /// Where the server is, without a password.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(open) = open {
            return Ok(open);
        }
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(self.timeout));
        let made = self.client.get_multiplexed_async_connection_with_config(&config).await?;
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
            && reaction::to(error) == Reaction::Reconnect
        {
            self.forget();
        }
        answer
    }

    /// Sends commands together; none of them gives its answer.
    pub(super) async fn pipeline(&self, pipeline: &redis::Pipeline) -> RedisResult<()> {
        let answer = async { pipeline.query_async(&mut self.connection().await?).await }.await;
        if let Err(error) = &answer
            && reaction::to(error) == Reaction::Reconnect
        {
            self.forget();
        }
        answer
    }

    /// Runs a script, which is loaded first where the server does not have it.
    pub(super) async fn run(&self, call: &Call) -> RedisResult<Value> {
        match self.query(&call.command).await {
            Err(error) if reaction::to(&error) == Reaction::LoadScript => {
                self.query(redis::cmd("SCRIPT").arg("LOAD").arg(call.source)).await?;
                self.query(&call.command).await
            }
            answer => answer,
        }
    }

    /// The error that a caller gets.
    pub(super) fn error(&self, error: &redis::RedisError) -> QueueError {
        reaction::error(reaction::to(error), &self.place, &reaction::words(error))
    }

    /// An answer that is not what was asked for: another version than any that we know.
    pub(super) fn nonsense(&self, what: &str) -> QueueError {
        QueueError::Broken(format!("redis at {}: the answer to {what} makes no sense", self.place))
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
}
