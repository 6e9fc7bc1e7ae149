//! A small threat API that answers in the form of AbuseIPDB v2: for trying dossier without an account, and for tests that
//! need an API which is slow, broken or used up on demand.
//!
//! It owns its command line and the listening; what it answers is in `api`, what it knows in `addresses`. It is no
//! reputation service: what it knows is a small file.

mod addresses;
mod api;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use crate::addresses::Addresses;
use crate::api::Behaviour;

/// Answers `GET /api/v2/check` as AbuseIPDB does, from a small file.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  threat-api --listen 127.0.0.1:8080
  curl -H 'Key: any' 'http://127.0.0.1:8080/api/v2/check?ipAddress=185.220.101.34&maxAgeInDays=90'
  curl http://127.0.0.1:8080/asked      how many checks were asked for so far
  threat-api --fail 503                 every check fails
  threat-api --delay 30s                every check hangs for half a minute
  threat-api --quota 100                the 101st check and all after it get 429"
)]
struct Arguments {
    /// Where to listen; port 0 takes a free one. The address is printed on the first line
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The key that is asked for; without it any key will do, but there must be one
    #[arg(long, env = "THREAT_API_KEY", hide_env_values = true, value_name = "KEY")]
    key: Option<String>,
    /// A CSV file of addresses to answer from, in place of the built-in one (threat-api/addresses.csv)
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Wait so long before each answer, as in 250ms or 30s
    #[arg(long, default_value = "0s", value_parser = duration, value_name = "TIME")]
    delay: Duration,
    /// Answer every check with this status
    #[arg(long, value_parser = clap::value_parser!(u16).range(400..=599), value_name = "STATUS")]
    fail: Option<u16>,
    /// Answer so many checks, then 429
    #[arg(long, value_name = "CHECKS")]
    quota: Option<u64>,
    /// What Retry-After says when the quota is used up, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    retry_after: u32,
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "write it as in 250ms or 30s".to_owned())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let addresses = match &arguments.data {
        Some(file) => Addresses::read(file)?,
        None => Addresses::built_in()?,
    };
    let behaviour = Behaviour {
        key: arguments.key,
        delay: arguments.delay,
        fail: arguments.fail,
        quota: arguments.quota,
        retry_after: arguments.retry_after,
    };
    let listener = tokio::net::TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}; choose another with --listen", arguments.listen))?;
    println!("listening on http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    // What hangs on purpose must not hold up the end, so there is no draining.
    tokio::select! {
        ended = async { axum::serve(listener, api::router(addresses, behaviour)).await } => ended?,
        _ = terminate.recv() => {}
        pressed = tokio::signal::ctrl_c() => pressed?,
    }
    Ok(())
}
