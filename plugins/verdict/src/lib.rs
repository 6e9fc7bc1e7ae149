//! Weighs severity, reputation, asset and geography into a verdict, with the reasons that an analyst would write.
//!
//! Each part gives a share from 0 to 1 of its weight; the score is their sum, from 0 to 100:
//! - severity: low 0.25, medium 0.5, high 0.75, critical 1, after what `severity` finds;
//! - reputation: the highest score of an address that is not trusted, as a share of 100;
//! - asset: the highest criticality: low 0, medium 0.3, high 0.7, critical 1;
//! - geography: 1 when a source is in one of the countries of `watch`, else 0;
//! - a trusted source takes the weight `trusted` off.
//!
//! From `malicious` on the label is `malicious`, from `suspicious` on `suspicious`, below `benign` it is `benign` if the
//! reputation is known or the source trusted. Everything else is `unknown`: too little speaks for either.
//!
//! Settings, with their defaults:
//! - `steps = { reputation = "ip-reputation", asset = "asset", geo = "geo" }`: the steps whose results are read. One that gave
//!   none counts nothing.
//! - `weights = { severity = 30, reputation = 50, asset = 15, geography = 5, trusted = 40 }`
//! - `thresholds = { malicious = 70, suspicious = 40, benign = 20 }`
//! - `watch = []`: country codes that count, such as `["KP"]`.
//!
//! Fields: `{ "severity"?, "points": { "severity", "reputation", "asset", "geography", "trusted" } }`, where `points` sum up to
//! the score before it is cut to 0 to 100.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics has failed"))]

mod earlier;
mod reasons;
mod severity;

use dossier_sdk::{Alert, Answer, Failure, Label, Plugin, Stage, Verdict};
use earlier::{Assets, Geography, Reputations, read};
use serde::{Deserialize, Serialize};
use severity::Severity;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Steps {
    reputation: String,
    asset: String,
    geo: String,
}

impl Default for Steps {
    fn default() -> Self {
        Self { reputation: "ip-reputation".into(), asset: "asset".into(), geo: "geo".into() }
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Weights {
    severity: f64,
    reputation: f64,
    asset: f64,
    geography: f64,
    trusted: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { severity: 30.0, reputation: 50.0, asset: 15.0, geography: 5.0, trusted: 40.0 }
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Thresholds {
    malicious: u8,
    suspicious: u8,
    benign: u8,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { malicious: 70, suspicious: 40, benign: 20 }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    steps: Steps,
    weights: Weights,
    thresholds: Thresholds,
    watch: Vec<String>,
}

struct Judge(Settings);

/// What is known of an alert when it is judged.
#[derive(Default)]
struct Evidence<'a> {
    severity: Option<Severity>,
    reputation: Option<Reputations<'a>>,
    assets: Option<Assets<'a>>,
    geography: Option<Geography<'a>>,
}

/// What each part gives to the score.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Points {
    severity: f64,
    reputation: f64,
    asset: f64,
    geography: f64,
    trusted: f64,
}

impl Points {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 100")]
    fn score(&self) -> u8 {
        let sum = self.severity + self.reputation + self.asset + self.geography + self.trusted;
        sum.clamp(0.0, 100.0).round() as u8
    }
}

#[derive(Serialize)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<Severity>,
    points: Points,
}

impl Judge {
    fn weigh(&self, evidence: &Evidence<'_>) -> Points {
        let Settings { weights, watch, .. } = &self.0;
        let trusted_source =
            evidence.reputation.as_ref().is_some_and(|reputation| reputation.trusted_source().is_some());
        let watched = evidence.geography.as_ref().is_some_and(|geography| geography.source_in(watch).is_some());
        let tenth = |points: f64| (points * 10.0).round() / 10.0;
        Points {
            severity: tenth(weights.severity * evidence.severity.map_or(0.0, Severity::share)),
            reputation: tenth(
                weights.reputation
                    * evidence.reputation.as_ref().map_or(0.0, |reputation| f64::from(reputation.score) / 100.0),
            ),
            asset: tenth(weights.asset * evidence.assets.as_ref().map_or(0.0, Assets::share)),
            geography: if watched { weights.geography } else { 0.0 },
            trusted: if trusted_source { -weights.trusted } else { 0.0 },
        }
    }

    fn label(&self, score: u8, evidence: &Evidence<'_>) -> Label {
        let thresholds = &self.0.thresholds;
        if score >= thresholds.malicious {
            Label::Malicious
        } else if score >= thresholds.suspicious {
            Label::Suspicious
        } else if score < thresholds.benign && evidence.reputation.is_some() {
            Label::Benign
        } else {
            Label::Unknown
        }
    }
}

impl Plugin for Judge {
    const STAGE: Stage = Stage::Verdict;
    type Settings = Settings;

    fn configure(settings: Settings) -> Result<Self, String> {
        let Thresholds { malicious, suspicious, benign } = settings.thresholds;
        if !(benign <= suspicious && suspicious <= malicious && malicious <= 100) {
            return Err(format!(
                "settings: thresholds: benign ({benign}) <= suspicious ({suspicious}) <= malicious ({malicious}) <= 100 must hold"
            ));
        }
        Ok(Self(settings))
    }

    fn enrich(&self, alert: &Alert) -> Result<Answer, Failure> {
        let steps = &self.0.steps;
        let result = |step: &str| alert.enrichment_raw(step, "");
        let (reputation, assets, geography) = (result(&steps.reputation), result(&steps.asset), result(&steps.geo));
        let evidence = Evidence {
            severity: Severity::of(alert),
            reputation: read(&steps.reputation, reputation.as_deref())?,
            assets: read(&steps.asset, assets.as_deref())?,
            geography: read(&steps.geo, geography.as_deref())?,
        };
        let points = self.weigh(&evidence);
        let score = points.score();
        let verdict = Verdict::new(self.label(score, &evidence), score, reasons::of(&evidence, &points, &self.0.watch));
        Ok(Answer::of(&Fields { severity: evidence.severity, points })?.verdict(verdict))
    }
}

dossier_sdk::export!(Judge);

#[cfg(test)]
mod tests;
