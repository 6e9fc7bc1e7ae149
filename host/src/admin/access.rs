//! Who may ask: whoever knows the token, where there is one. Owns no secret longer than it takes to digest it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::api::problem;
use crate::config::Token;

/// What must be known.
pub(super) struct Access {
    /// The digest of the token: two digests are as long as each other, so that comparing them tells nothing of the token's length.
    token: Option<[u8; 32]>,
}

impl Access {
    /// Admits who knows this token; everybody where there is none.
    pub(super) fn new(token: Option<&Token>) -> Self {
        Self { token: token.map(|token| Sha256::digest(token.expose()).into()) }
    }

    /// Whether these headers carry the token; takes as long for a wrong one as for the right one.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        // RFC 9110: the scheme's name may be written in any case.
        let Some((scheme, given)) = given.split_at_checked(7) else { return false };
        let given: [u8; 32] = Sha256::digest(given).into();
        scheme.eq_ignore_ascii_case(b"bearer ") & bool::from(token.ct_eq(&given))
    }

    /// Whether a browser may have been led here under somebody else's name (DNS rebinding): without a token it is the name that
    /// tells a page of this machine from one of the internet's.
    fn is_lured(&self, headers: &HeaderMap) -> bool {
        let Some(host) = headers.get(header::HOST).filter(|_| self.token.is_none()) else { return false };
        let host = host.to_str().unwrap_or_default();
        let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        !name.eq_ignore_ascii_case("localhost") && address.is_err()
    }
}

/// Answers those who may ask.
pub(super) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    // What restarts a host that hangs (a kubelet, an init system) seldom has a place for a secret, and learns nothing here but that
    // the host lives.
    if path == "/healthz" {
        return next.run(request).await;
    }
    if !access.knows(request.headers()) {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"dossier\"")];
        let why = "this needs the token of [admin]: Authorization: Bearer …";
        return (challenge, problem(StatusCode::UNAUTHORIZED, why)).into_response();
    }
    if access.is_lured(request.headers()) {
        let why = "ask under an IP address or as localhost; under any other name it needs a token in [admin]";
        return problem(StatusCode::FORBIDDEN, why);
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn only_the_whole_token_opens() {
        let access = Access::new(Some(&Token::new("0123456789abcdef".into()).unwrap()));
        for right in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", "BEARER 0123456789abcdef"] {
            assert!(access.knows(&headers(header::AUTHORIZATION, right)), "{right}");
        }
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer  0123456789abcdef",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!access.knows(&headers(header::AUTHORIZATION, wrong)), "{wrong}");
        }
        assert!(!access.knows(&HeaderMap::new()));
        assert!(Access::new(None).knows(&HeaderMap::new()));
    }

    #[test]
    fn without_a_token_only_names_of_this_machine_are_answered() {
        let open = Access::new(None);
        for own in ["localhost", "LOCALHOST:9464", "127.0.0.1:9464", "[::1]:9464", "[::1]", "192.0.2.1"] {
            assert!(!open.is_lured(&headers(header::HOST, own)), "{own}");
        }
        for foreign in ["evil.example:9464", "localhost.evil.example", "", "127.0.0.1.evil.example", "x:y"] {
            assert!(open.is_lured(&headers(header::HOST, foreign)), "{foreign}");
        }
        let closed = Access::new(Some(&Token::new("0123456789abcdef".into()).unwrap()));
        assert!(!closed.is_lured(&headers(header::HOST, "dossier.example.org")));
    }
}
