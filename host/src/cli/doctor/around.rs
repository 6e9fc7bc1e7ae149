//! What is reached over the network: the HTTP interfaces, and the host that runs here.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::net::TcpStream;

use crate::admin::{AskError, Client};
use crate::checkup::Observation;
use crate::cli::output::count;
use crate::config::Config;
use crate::plugin::http::{Http, HttpError};

/// How long somebody may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks each interface that a step was granted whether anybody answers.
pub(super) async fn http(config: &Config) -> Vec<Observation> {
    let granted: BTreeSet<_> = config.steps.iter().flat_map(|step| &step.http).collect();
    let Ok(http) = Http::new(&config.http, None, Arc::default()) else {
        // Why not is a finding about the configuration already.
        return Vec::new();
    };
    let look = async |(name, interface): (&String, &crate::config::HttpConfig)| {
        let url = interface.url.as_str();
        if !granted.contains(name) {
            return Observation::note(
                format!("{name}: {url}"),
                "no step was granted it: add it to http = [...] in a [[step]], or take it out",
            );
        }
        let began = Instant::now();
        judge(&format!("{name}: {url}"), http.reach(name, PATIENCE).await, began.elapsed())
    };
    join_all(config.http.iter().map(look)).await
}

fn judge(what: &str, answer: Result<u16, HttpError>, took: Duration) -> Observation {
    match answer {
        Ok(status @ 300..400) => Observation::note(
            format!("{what} answers {status}, a redirect, in {took:.0?}"),
            "redirects are not followed: write the address that it leads to",
        ),
        Ok(status @ 500..) => Observation::note(
            format!("{what} answers {status} in {took:.0?}"),
            "it is there and in trouble, or does not know HEAD; steps that ask it may be unavailable",
        ),
        Ok(status) => Observation::fine(format!("{what} answers {status} in {took:.0?} (asked without credentials)")),
        Err(HttpError::Denied(why)) => Observation::broken(what.to_owned(), why),
        Err(HttpError::Timeout) => Observation::risk(
            format!("{what} does not answer within {} s", PATIENCE.as_secs()),
            "steps that ask it end as unavailable, and their alerts in the dead letters after the last retry; look at the way there (DNS, \
             firewall) and at the service",
        ),
        Err(error) => Observation::risk(
            format!("{what} cannot be reached: {error}"),
            "steps that ask it end as unavailable, and their alerts in the dead letters after the last retry; look at the way there (DNS, \
             firewall) and at the service",
        ),
    }
}

/// Asks the host at the admin address how it is.
pub(super) async fn host(config: &Config) -> Vec<Observation> {
    let Some(address) = config.admin.address else {
        return vec![Observation::note(
            "there is no admin address (address = \"off\")",
            "set address in [admin], so that /readyz and /metrics can be watched",
        )];
    };
    if address.port() == 0 {
        return vec![Observation::note(
            "the admin address is any free port, so nobody knows where to ask",
            "set a port in [admin] address; a host's first log line says the one that it took",
        )];
    }
    let asked = match Client::of(address, config.admin.token.clone()) {
        Ok(client) => client.ready().await,
        Err(error) => Err(error),
    };
    let ready = match asked {
        Ok(ready) => ready,
        Err(AskError::NoAnswer { .. }) => return vec![nobody(address).await],
        Err(error) => return vec![Observation::broken(error.to_string(), "")],
    };
    let mut seen: Vec<_> = ready
        .problems
        .iter()
        .map(|(part, what)| Observation::broken(format!("the host at {address} is not ready: {part}: {what}"), ""))
        .collect();
    if ready.ready {
        seen.push(Observation::fine(format!("a host answers at {address}, and is ready")));
    }
    let notices = ready.notices.iter();
    seen.extend(
        notices.map(|(part, what)| Observation::note(format!("the host at {address} says: {part}: {what}"), "")),
    );
    let more = ready.alarms.saturating_sub(ready.notices.len() as u64);
    if more > 0 {
        seen.push(Observation::note(format!("the host at {address} has {} more", count(more, "alarm")), ""));
    }
    seen
}

/// What there is where no host answers.
async fn nobody(address: SocketAddr) -> Observation {
    let there = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await.is_ok_and(|stream| stream.is_ok());
    if there {
        return Observation::broken(
            format!("something listens at the admin address {address}, and it is no dossier"),
            "a host cannot start with it: choose another address in [admin]",
        );
    }
    Observation::note(format!("no host answers at {address}"), "dossier run starts one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::Gravity;

    #[test]
    fn whoever_answers_is_there_and_whoever_does_not_is_a_risk() {
        let gravity = |answer| judge("x", answer, Duration::ZERO).gravity;
        for status in [200, 401, 404, 405] {
            assert_eq!(gravity(Ok(status)), Gravity::Fine);
        }
        assert_eq!([gravity(Ok(301)), gravity(Ok(503))], [Gravity::Note; 2]);
        assert_eq!(gravity(Err(HttpError::Timeout)), Gravity::Risk);
        assert_eq!(gravity(Err(HttpError::Unreachable("refused".into()))), Gravity::Risk);
        assert_eq!(gravity(Err(HttpError::Denied("private".into()))), Gravity::Broken);
    }

    #[tokio::test]
    async fn what_has_the_admin_address_and_is_no_host_is_found_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let other = tokio::spawn(async move {
            loop {
                drop(listener.accept().await);
            }
        });
        let text = format!("[admin]\naddress = \"{address}\"");
        let config = Config::parse(std::path::Path::new("dossier.toml"), &text).unwrap();
        assert_eq!(host(&config).await[0].gravity, Gravity::Broken);
        other.abort();
        let _ = other.await;
        assert_eq!(host(&config).await[0].gravity, Gravity::Note);
    }
}
