//! The other end of the admin address: asks a running host how it is. Trusts nothing that it says further than its size.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::{StatusCode, redirect};
use serde::de::DeserializeOwned;
use url::Url;

use super::Ready;
use super::api::report::{Problem, STARTING};
use crate::config::Token;

/// How long the host may take to be reached, and to answer.
const CONNECT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);

/// How much it may say, in bytes; a line of a tap as well.
const LONGEST: usize = 16 << 20;

/// Why a host could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The address is none.
    #[error("\"{0}\" is no address of a host; write it as in 127.0.0.1:9464 or https://dossier.example.org")]
    Address(String),
    /// Nothing there answers, or something that is no host.
    #[error(
        "no host answers at {at}: {why}; start one with dossier run, or name its admin address with --address ([admin] in its \
         configuration)"
    )]
    NoAnswer {
        /// Where.
        at: String,
        /// What happened instead.
        why: String,
    },
    /// Something is there, and says nothing.
    #[error(
        "what listens at {at} says nothing for {seconds} s, as a host that hangs or was stopped; look at its process (ss -ltnp names it, ps \
         its state), and restart it"
    )]
    Silent {
        /// Where.
        at: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The host is not there yet, and will be.
    #[error(
        "the host at {at} is starting; it will be there in a moment, and if not, dossier doctor says what it waits for"
    )]
    Starting {
        /// Where.
        at: String,
    },
    /// The host wants a token, or another one.
    #[error(
        "the host at {at} does not know this token; export DOSSIER_ADMIN_TOKEN with the token of [admin] in its configuration"
    )]
    Token {
        /// Where.
        at: String,
    },
    /// The host says why it does not answer.
    #[error("the host at {at} says: {why}")]
    Refused {
        /// Where.
        at: String,
        /// In its words, which may hold what others wrote.
        why: String,
    },
}

/// Where a host answers, and what it wants to be told first.
pub struct Client {
    base: Url,
    token: Option<Token>,
    http: reqwest::Client,
}

impl Client {
    /// A host at an address such as `127.0.0.1:9464`, or at a URL where a proxy before it does TLS.
    ///
    /// # Errors
    /// [`AskError::Address`]; or [`AskError::NoAnswer`] when TLS cannot be set up.
    pub fn new(address: &str, token: Option<Token>) -> Result<Self, AskError> {
        let wrong = || AskError::Address(address.to_owned());
        let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let base = Url::parse(&url).map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() || base.query().is_some() {
            return Err(wrong());
        }
        // It fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("dossier/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT);
        if base.scheme() == "http" {
            // Without TLS no root certificates are needed, and a machine need not have any.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|error| AskError::NoAnswer { at: base.to_string(), why: cause(&error) })?;
        Ok(Self { base, token, http })
    }

    /// The host that listens on this address, from the same machine.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn of(mut address: SocketAddr, token: Option<Token>) -> Result<Self, AskError> {
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Self::new(&address.to_string(), token)
    }

    /// Where it asks, for people.
    pub fn at(&self) -> String {
        let text = self.base.as_str().trim_end_matches('/');
        text.strip_prefix("http://").unwrap_or(text).to_owned()
    }

    /// What a path of the API says.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        let asked = async {
            let answer = self.send(path).await?;
            let status = answer.status();
            let body = self.body(answer).await?;
            if !status.is_success() {
                return Err(self.refusal(status, &body));
            }
            serde_json::from_slice(&body)
                .map_err(|error| self.no_answer(format!("what it says of {path} is odd: {error}")))
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(self.too_slow()))
    }

    /// What `/readyz` says, be it ready or not.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ready(&self) -> Result<Ready, AskError> {
        let asked = async {
            let answer = self.send("/readyz").await?;
            let status = answer.status();
            let body = self.body(answer).await?;
            match serde_json::from_slice(&body) {
                Ok(ready) if status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE => Ok(ready),
                _ => Err(self.refusal(status, &body)),
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(self.too_slow()))
    }

    /// The lines of a path that goes on, without their ends; empty ones are left out.
    ///
    /// # Errors
    /// [`AskError`], also in place of a line when the host goes away.
    pub async fn lines(&self, path: &str) -> Result<BoxStream<'_, Result<Bytes, AskError>>, AskError> {
        let answer = tokio::time::timeout(PATIENCE, self.send(path)).await.unwrap_or_else(|_| Err(self.too_slow()))?;
        let status = answer.status();
        if !status.is_success() {
            let body = self.body(answer).await?;
            return Err(self.refusal(status, &body));
        }
        let begun = (Box::pin(answer.bytes_stream()), BytesMut::new());
        let lines = futures_util::stream::try_unfold(begun, move |(mut pieces, mut rest)| async move {
            loop {
                if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line = rest.split_to(end + 1).freeze();
                    let line = line.slice(..line.len() - 1);
                    if !line.is_empty() {
                        return Ok(Some((line, (pieces, rest))));
                    }
                    continue;
                }
                if rest.len() > LONGEST {
                    return Err(self.no_answer(format!("a line of it is longer than {} MiB", LONGEST >> 20)));
                }
                match pieces.next().await {
                    Some(Ok(piece)) => rest.extend_from_slice(&piece),
                    Some(Err(_)) => return Err(self.no_answer("it went away".to_owned())),
                    None => return Ok(None),
                }
            }
        });
        Ok(lines.boxed())
    }

    async fn send(&self, path: &str) -> Result<reqwest::Response, AskError> {
        let url = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        let mut request = self.http.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        request.send().await.map_err(|error| self.no_answer(cause(&error)))
    }

    async fn body(&self, answer: reqwest::Response) -> Result<Vec<u8>, AskError> {
        let (mut body, mut pieces) = (Vec::new(), answer.bytes_stream());
        while let Some(piece) = pieces.next().await {
            body.extend_from_slice(&piece.map_err(|error| self.no_answer(cause(&error)))?);
            if body.len() > LONGEST {
                return Err(self.no_answer(format!("it says more than {} MiB", LONGEST >> 20)));
            }
        }
        Ok(body)
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> AskError {
        if status == StatusCode::UNAUTHORIZED {
            return AskError::Token { at: self.at() };
        }
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) if problem.error == STARTING => AskError::Starting { at: self.at() },
            Ok(problem) => AskError::Refused { at: self.at(), why: problem.error },
            Err(_) => self.no_answer(format!("what is there answers {status}, as no host of this version does")),
        }
    }

    fn no_answer(&self, why: String) -> AskError {
        AskError::NoAnswer { at: self.at(), why }
    }

    fn too_slow(&self) -> AskError {
        AskError::Silent { at: self.at(), seconds: PATIENCE.as_secs() }
    }
}

/// What is at the bottom of an error: reqwest's own words name the URL and little else.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string().to_lowercase()
}
