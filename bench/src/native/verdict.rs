//! As plugins/verdict with its default settings, for what the other steps of the benchmark can say.

use dossier::json::document::{Document, Part};
use dossier::pipeline::{Answer, Failure};
use dossier::record::{Label, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Case, Plain, answer};

pub(super) struct Judge {
    severity: f64,
    reputation: f64,
    asset: f64,
}

impl Default for Judge {
    fn default() -> Self {
        Self { severity: 30.0, reputation: 50.0, asset: 15.0 }
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reputations {
    score: u8,
    addresses: Vec<Reputed>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reputed {
    address: String,
    roles: Vec<String>,
    score: u8,
    feeds: Vec<Listed>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Listed {
    value: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Assets {
    assets: Vec<Known>,
    criticality: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Known {
    matched: Vec<Match>,
    asset: Asset,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Match {
    role: String,
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Asset {
    hostname: Value,
    role: Value,
    criticality: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Geography {
    addresses: Vec<Located>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Located {
    address: String,
    roles: Vec<String>,
    scope: String,
    country_code: Option<String>,
    country: Option<String>,
}

#[derive(Default, Serialize)]
struct Points {
    severity: f64,
    reputation: f64,
    asset: f64,
    geography: f64,
    trusted: f64,
}

#[derive(Serialize)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<Severity>,
    points: Points,
}

impl Severity {
    fn of(alert: &Document) -> Option<Self> {
        let number = |pointer| alert.pointer(pointer).and_then(Part::as_u64);
        let word = |pointer| alert.pointer(pointer).and_then(Part::as_str).and_then(Self::from_word);
        let suricata = match number("/alert/severity") {
            Some(1) => Some(Self::High),
            Some(2) => Some(Self::Medium),
            Some(3..=255) => Some(Self::Low),
            _ => None,
        };
        let ocsf = || match number("/severity_id")? {
            1 | 2 => Some(Self::Low),
            3 => Some(Self::Medium),
            4 => Some(Self::High),
            5 | 6 => Some(Self::Critical),
            _ => None,
        };
        let ecs = || match number("/event/severity")? {
            0..=32 => Some(Self::Low),
            33..=65 => Some(Self::Medium),
            66..=89 => Some(Self::High),
            90..=100 => Some(Self::Critical),
            _ => None,
        };
        suricata.or_else(ocsf).or_else(ecs).or_else(|| word("/severity")).or_else(|| word("/kibana/alert/severity"))
    }

    fn from_word(word: &str) -> Option<Self> {
        match word.trim().to_ascii_lowercase().as_str() {
            "info" | "informational" | "low" => Some(Self::Low),
            "medium" | "moderate" => Some(Self::Medium),
            "high" => Some(Self::High),
            "critical" | "fatal" => Some(Self::Critical),
            _ => None,
        }
    }

    fn share(self) -> (f64, &'static str) {
        match self {
            Self::Low => (0.25, "low"),
            Self::Medium => (0.5, "medium"),
            Self::High => (0.75, "high"),
            Self::Critical => (1.0, "critical"),
        }
    }
}

fn share(criticality: &str) -> f64 {
    match criticality.trim().to_ascii_lowercase().as_str() {
        "critical" => 1.0,
        "high" => 0.7,
        "medium" => 0.3,
        _ => 0.0,
    }
}

impl Plain for Judge {
    fn enrich(&self, case: &mut Case<'_>) -> Result<Answer, Failure> {
        let severity = Severity::of(&case.given.alert.value);
        let reputation: Option<Reputations> = case.earlier("ip-reputation")?;
        let assets: Option<Assets> = case.earlier("asset")?;
        let geography: Option<Geography> = case.earlier("geo")?;
        let tenth = |points: f64| (points * 10.0).round() / 10.0;
        let points = Points {
            severity: tenth(self.severity * severity.map_or(0.0, |severity| severity.share().0)),
            reputation: tenth(
                self.reputation * reputation.as_ref().map_or(0.0, |known| f64::from(known.score) / 100.0),
            ),
            asset: tenth(
                self.asset * assets.as_ref().and_then(|known| known.criticality.as_deref()).map_or(0.0, share),
            ),
            ..Points::default()
        };
        let sum = (points.severity + points.reputation + points.asset).clamp(0.0, 100.0).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 100")]
        let score = sum as u8;
        let label = match score {
            70.. => Label::Malicious,
            40.. => Label::Suspicious,
            ..20 if reputation.is_some() => Label::Benign,
            _ => Label::Unknown,
        };
        let mut reasons = Vec::new();
        reasons.extend(reputation.iter().flat_map(|known| of_reputation(known, points.reputation)));
        reasons.extend(assets.into_iter().flat_map(|known| of_assets(known, points.asset)));
        reasons.extend(
            severity.map(|severity| (points.severity, format!("the sensor rates the alert {}", severity.share().1))),
        );
        reasons.extend(geography.as_ref().and_then(of_geography).map(|reason| (0.0, reason)));
        reasons.sort_by(|one: &(f64, String), other| other.0.abs().total_cmp(&one.0.abs()));
        let reasons = reasons.into_iter().map(|(_, reason)| reason).collect();
        answer(&Fields { severity, points }, Some(Verdict { label, score, reasons }))
    }
}

fn of_reputation(known: &Reputations, points: f64) -> Vec<(f64, String)> {
    let mut listed: Vec<_> = known.addresses.iter().filter(|address| address.score > 0).collect();
    if listed.is_empty() && !known.addresses.is_empty() {
        return vec![(0.0, "no address of the alert is on any list".into())];
    }
    listed.sort_by_key(|address| std::cmp::Reverse(address.score));
    let reason = |(place, address): (usize, &Reputed)| {
        let lists: f64 = address.feeds.iter().map(|feed| feed.value.unwrap_or(1.0).max(1.0)).sum();
        let standing = if lists < 2.0 { "is on a block list".into() } else { format!("is on {lists:.0} block lists") };
        let named = format!("{} ({})", address.address, address.roles.join(", "));
        (if place == 0 { points } else { 0.0 }, format!("{named} {standing}"))
    };
    listed.into_iter().enumerate().map(reason).collect()
}

fn of_assets(known: Assets, points: f64) -> Vec<(f64, String)> {
    let rank = |asset: &Known| asset.asset.criticality.as_str().map_or(0.0, share);
    let mut assets = known.assets;
    assets.sort_by(|one, other| rank(other).total_cmp(&rank(one)));
    assets.iter().enumerate().map(|(place, asset)| (if place == 0 { points } else { 0.0 }, described(asset))).collect()
}

fn described(known: &Known) -> String {
    let text = |value: &Value| value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let first = known.matched.first();
    let part = match first.map(|found| found.role.as_str()) {
        Some("destination") => "the target ",
        Some("source") => "the source ",
        _ => "",
    };
    let name = text(&known.asset.hostname).or_else(|| first.map(|found| found.value.clone())).unwrap_or_default();
    let what = text(&known.asset.role).map_or_else(
        || "is an asset".into(),
        |role| {
            format!("is {} {role}", if role.starts_with(['a', 'e', 'i', 'o', 'A', 'E', 'I', 'O']) { "an" } else { "a" })
        },
    );
    match text(&known.asset.criticality) {
        Some(criticality) => format!("{part}{name} {what} of criticality {}", criticality.to_ascii_lowercase()),
        None => format!("{part}{name} {what}"),
    }
}

fn of_geography(known: &Geography) -> Option<String> {
    let source = known.addresses.iter().find(|located| located.roles.iter().any(|role| role == "source"))?;
    let address = &source.address;
    match (source.country.as_deref(), source.country_code.as_deref()) {
        (Some(name), Some(code)) => Some(format!("{address} (source) is in {name} ({code})")),
        (None, Some(code)) => Some(format!("{address} (source) is in {code}")),
        _ if !matches!(source.scope.as_str(), "public" | "") => {
            Some(format!("{address} (source) is a {} address", source.scope))
        }
        _ => None,
    }
}
