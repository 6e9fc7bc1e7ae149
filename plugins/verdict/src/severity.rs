//! How bad the sensor says it is, in the scales of those that are known.

use dossier_sdk::Alert;
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    /// The first that is there: Suricata's `/alert/severity` (1 is high), OCSF's `/severity_id`, ECS' `/event/severity` (0 to
    /// 100, as Elastic uses it: 21, 47, 73, 99), a word at `/severity` or at `/kibana/alert/severity`.
    pub(crate) fn of(alert: &Alert) -> Option<Self> {
        let number = |pointer| alert.get::<u64>(pointer);
        let word = |pointer| alert.str(pointer).and_then(|word| Self::from_word(&word));
        let suricata = || match number("/alert/severity")? {
            1 => Some(Self::High),
            2 => Some(Self::Medium),
            3..=255 => Some(Self::Low),
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
        suricata().or_else(ocsf).or_else(ecs).or_else(|| word("/severity")).or_else(|| word("/kibana/alert/severity"))
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

    /// Its share of the weight.
    pub(crate) const fn share(self) -> f64 {
        match self {
            Self::Low => 0.25,
            Self::Medium => 0.5,
            Self::High => 0.75,
            Self::Critical => 1.0,
        }
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}
