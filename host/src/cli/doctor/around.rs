//! What is reached over the network: the HTTP interfaces, and the host that runs here.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::net::TcpStream;

use crate::admin::api::report::{Alarm, Alarms};
use crate::admin::{AskError, Client, Ready};
use crate::checkup::{Observation, rough};
use crate::cli::output::count;
use crate::config::Config;
use crate::plugin::http::{Http, HttpError};
use crate::telemetry::alarms::Kind;

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

/// Asks the host at the admin address how it is; says whether there is one.
pub(super) async fn host(config: &Config) -> (bool, Vec<Observation>) {
    let none = |observation| (false, vec![observation]);
    let Some(address) = config.admin.address else {
        return none(Observation::note(
            "there is no admin address (address = \"off\")",
            "set address in [admin], so that /readyz and /metrics can be watched",
        ));
    };
    if address.port() == 0 {
        return none(Observation::note(
            "the admin address is any free port, so nobody knows where to ask",
            "set a port in [admin] address; a host's first log line says the one that it took",
        ));
    }
    let asked = async {
        let client = Client::of(address, config.admin.token.clone())?;
        let ready = client.ready().await?;
        // A host of another version may not have them; then what it says there is all there is.
        let alarms = client.get::<Alarms>("/api/v1/alarms").await.map(|alarms| alarms.alarms);
        Ok::<_, AskError>((ready, alarms.ok()))
    };
    match asked.await {
        Ok((ready, alarms)) => (true, how_it_is(address, &ready, alarms.as_deref())),
        Err(AskError::NoAnswer { .. }) => none(nobody(address).await),
        Err(error) => none(Observation::broken_as_told(&error.to_string(), "look at its process and its log")),
    }
}

/// What a host says of itself: whether it is ready, and its alarms, which its notices repeat with less.
fn how_it_is(address: SocketAddr, ready: &Ready, alarms: Option<&[Alarm]>) -> Vec<Observation> {
    let problem = |(part, what): (&String, &String)| {
        let next = match part.split(' ').next().unwrap_or_default() {
            "plugins" => Kind::PluginMissing.remedy(),
            "queue" => Kind::QueueTrouble.remedy(),
            "start" => "wait a moment and ask again; its log says what it waits for",
            "host" => "it was told to stop: start another with dossier run",
            _ => "see what its log says",
        };
        Observation::broken(format!("the host at {address} is not ready: {part}: {what}"), next)
    };
    let mut seen: Vec<_> = ready.problems.iter().map(problem).collect();
    if ready.ready {
        seen.push(Observation::fine(format!("a host answers at {address}, and is ready")));
    }
    let Some(alarms) = alarms else {
        let told = |(part, what): (&String, &String)| {
            let next = "see what it is: dossier top; this program cannot ask for the alarms of a host of that version";
            Observation::risk(format!("the host at {address} says: {part}: {what}"), next)
        };
        seen.extend(ready.notices.iter().map(told));
        return seen;
    };
    seen.extend(alarms.iter().map(|alarm| {
        let subject = if alarm.subject.is_empty() { String::new() } else { format!(" {}", alarm.subject) };
        let age = rough(Duration::from_secs(alarm.age_seconds));
        let what = format!("the host at {address} raises {}{subject} for {age}: {}", alarm.alarm, alarm.detail);
        match alarm.severity.as_str() {
            "info" => Observation::note(what, &alarm.remedy),
            _ => Observation::risk(what, &alarm.remedy),
        }
    }));
    // The gravest are told.
    let more = ready.alarms.saturating_sub(alarms.len() as u64);
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
        assert_eq!(host(&config).await.1[0].gravity, Gravity::Broken);
        other.abort();
        let _ = other.await;
        assert_eq!(host(&config).await.1[0].gravity, Gravity::Note);
    }

    #[tokio::test]
    async fn a_host_that_hangs_is_said_to_hang_and_nobody_is_sent_to_another_address() {
        // The kernel takes connections for a process that is stopped.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let text = format!("[admin]\naddress = \"{}\"", listener.local_addr().unwrap());
        let config = Config::parse(std::path::Path::new("dossier.toml"), &text).unwrap();
        let (answers, seen) = host(&config).await;
        assert!(!answers && seen[0].gravity == Gravity::Broken, "{seen:?}");
        let line = seen[0].line();
        assert!(line.contains("hangs") && line.contains("restart it") && !line.contains("another address"), "{line}");
    }

    #[test]
    fn what_a_host_raises_is_a_risk_with_its_remedy() {
        let alarm = |kind: Kind| Alarm {
            alarm: kind.name().into(),
            severity: kind.severity().as_str().into(),
            subject: "geo".into(),
            detail: "it is so".into(),
            since: "2026-01-02T03:04:05Z".into(),
            age_seconds: 90,
            times: 1,
            remedy: kind.remedy().into(),
        };
        let problems = ["plugins", "queue commit", "start", "host", "other"].map(|part| (part.into(), "x".into()));
        let notices = [("table-stale geo".into(), "old".into())];
        let ready = Ready { ready: false, problems: problems.into(), notices: notices.into(), alarms: 0 };
        let address = "127.0.0.1:9464".parse().unwrap();
        let alarms: Vec<_> = Kind::ALL.iter().map(|kind| alarm(*kind)).collect();
        let seen = how_it_is(address, &ready, Some(&alarms));
        assert!(seen.iter().all(|one| !one.next.is_empty()), "{seen:?}");
        let seen = &seen[ready.problems.len()..];
        for (kind, one) in Kind::ALL.iter().zip(seen) {
            let expected = if *kind == Kind::PluginOnProbation { Gravity::Note } else { Gravity::Risk };
            assert_eq!((one.gravity, one.next.as_str()), (expected, kind.remedy()), "{}", kind.name());
        }
        assert_eq!(how_it_is(address, &ready, None).last().unwrap().gravity, Gravity::Risk);
    }
}
