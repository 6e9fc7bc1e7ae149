//! `[admin]`: where a host answers, and what whoever asks must know.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::Finding;
use super::place::Place;
use super::value::{SocketText, Text};

/// The admin address.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Where `/metrics`, `/healthz`, `/readyz` and `/api/v1` answer; none turns them off.
    pub address: Option<std::net::SocketAddr>,
    /// What whoever asks must know; none only where the address is of this machine alone.
    pub token: Option<Token>,
}

/// A secret that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The shortest, in bytes: what is shorter can be guessed.
    pub const SHORTEST: usize = 16;

    /// A text as a token.
    ///
    /// # Errors
    /// What is wrong with it, without the text: it is too short, or holds what no HTTP header may.
    pub fn new(text: String) -> Result<Self, String> {
        if text.len() < Self::SHORTEST {
            return Err(format!(
                "token must have at least {} characters; make one with `openssl rand -hex 32`",
                Self::SHORTEST
            ));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("token may hold letters, digits and signs of ASCII only, and no spaces".to_owned());
        }
        Ok(Self(text))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

#[derive(Deserialize, Default, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct RawAdmin {
    /// Where `/metrics`, `/healthz`, `/readyz` and `/api/v1` answer; port 0 takes a free one, "off" turns them off.
    #[schemars(with = "Option<SocketText>", extend("default" = "127.0.0.1:9464"))]
    address: Option<Spanned<Text>>,
    /// What whoever asks must send as a bearer token; needed where the address is not of this machine alone. At least 16 characters.
    #[schemars(with = "Option<Text>", extend("writeOnly" = true))]
    token: Option<Spanned<Text>>,
}

/// Fills in what is not said, and finds what must not be.
pub(super) fn admin_config(raw: RawAdmin, place: &Place<'_>, findings: &mut Vec<Finding>) -> AdminConfig {
    let mut refuse = |offset: usize, message: String| findings.push(place.finding(Some(offset), message));
    let has_token = raw.token.is_some();
    let token = raw.token.and_then(|token| {
        let offset = token.span().start;
        Token::new(token.into_inner().0).map_err(|why| refuse(offset, why)).ok()
    });
    let default = std::net::SocketAddr::from(([127, 0, 0, 1], 9464));
    let Some(address) = raw.address else { return AdminConfig { address: Some(default), token } };
    let offset = address.span().start;
    let address = match address.get_ref().0.as_str() {
        "off" => None,
        text => text.parse::<std::net::SocketAddr>().map_or_else(
            |_| {
                let hint = "write address and port, as in \"127.0.0.1:9464\", or \"off\"";
                refuse(offset, format!("\"{text}\" is no address; {hint}"));
                None
            },
            Some,
        ),
    };
    // An IPv4 address may be written as IPv6.
    if let Some(address) = address.filter(|address| !has_token && !address.ip().to_canonical().is_loopback()) {
        let message = format!(
            "other machines can reach \"{address}\", so whoever asks must know a token: add \
             token = \"${{DOSSIER_ADMIN_TOKEN}}\" to [admin] and export that variable, or listen on 127.0.0.1"
        );
        refuse(offset, message);
    }
    AdminConfig { address, token }
}
