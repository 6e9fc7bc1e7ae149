//! Sends requests, as often as it is told, for the micro-benchmarks. Apart from `calls`, because what imports HTTP must be granted it.
//!
//! Settings: `call` (`send`, or `send-all` for 16 requests at once), `times`, and `url`.

use std::hint::black_box;

use dossier_sdk::http::{self, Request};
use dossier_sdk::{Alert, Answer, Failure, Plugin};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Call {
    Send,
    SendAll,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requests {
    call: Call,
    times: u32,
    url: String,
}

impl Plugin for Requests {
    type Settings = Self;

    fn configure(settings: Self) -> Result<Self, String> {
        Ok(settings)
    }

    fn enrich(&self, _alert: &Alert) -> Result<Answer, Failure> {
        for _ in 0..self.times {
            match self.call {
                Call::Send => drop(black_box(http::get(&self.url)?)),
                Call::SendAll => {
                    let requests: Vec<_> = (0..16).map(|_| Request::new("GET", self.url.as_str())).collect();
                    http::send_all(&requests).into_iter().try_for_each(|answer| answer.map(drop))?;
                }
            }
        }
        Ok(Answer::from_json("{}"))
    }
}

dossier_sdk::export!(Requests);
