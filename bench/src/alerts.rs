//! The alerts that every row is measured with: real ones where they lie beside the checkout, else made here, in the same
//! shape and from a fixed seed. Each goes through many times, with another `flow_id` each time, so that none is a duplicate.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use dossier_tests::alerts::real;
use fastrand::Rng;

/// Real data, where it lies beside the checkout. Looked for once, for what is missing is said.
#[derive(Debug)]
pub struct Data {
    /// Alerts.
    pub alerts: Option<PathBuf>,
    /// A block list.
    pub block_list: Option<PathBuf>,
    /// Countries by address.
    pub countries: Option<PathBuf>,
}

/// It.
pub static DATA: LazyLock<Data> = LazyLock::new(|| Data {
    alerts: real("suricata-alerts.ndjson"),
    block_list: real("ipsum.txt"),
    countries: real("country-ipv4.mmdb"),
});

/// How many different alerts are made where there are no real ones.
const MADE: usize = 1000;

/// From how many addresses they come, and how many of those are on the block list: as in the real ones.
const SOURCES: usize = 92;
const LISTED: usize = 25;

/// How many rows the block list has that is made.
const BLOCK_LIST: usize = 120_000;

/// How many different alerts there are of another size.
const FEW: usize = 100;

/// The field that differs, and its first value. All values have as many digits.
const FIELD: &[u8] = b"\"flow_id\":";
const FIRST: u64 = 1_000_000_000_000_000;
const DIGITS: usize = 16;

/// Alerts without an end.
#[derive(Debug, Clone)]
pub struct Alerts {
    /// What stands before and after the number.
    templates: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where they are from.
    pub source: String,
    /// Bytes of one, on average.
    pub mean: f64,
}

impl Alerts {
    /// The real ones, or made ones.
    ///
    /// # Errors
    /// The real ones cannot be read, or are not what they should be.
    pub fn load() -> Result<Self> {
        match &DATA.alerts {
            Some(file) => Self::of(&std::fs::read_to_string(file)?, "real Suricata alerts"),
            None => Self::made(),
        }
    }

    /// Made ones, the same everywhere.
    ///
    /// # Errors
    /// None in practice.
    pub fn made() -> Result<Self> {
        Self::of(&made(), "made alerts in Suricata's shape")
    }

    fn of(text: &str, source: &str) -> Result<Self> {
        let templates = text.lines().map(template).collect::<Option<Vec<_>>>().context("an alert has no flow_id")?;
        ensure!(!templates.is_empty(), "there are no alerts");
        let bytes: usize = templates.iter().map(|(before, after)| before.len() + DIGITS + after.len()).sum();
        let mean = bytes as f64 / templates.len() as f64;
        let source = format!("{} {source}, {mean:.0} bytes on average", templates.len());
        Ok(Self { templates, source, mean })
    }

    /// The alert with this number.
    pub fn nth(&self, n: u64) -> Vec<u8> {
        #[expect(clippy::cast_possible_truncation, reason = "smaller than the number of templates")]
        let (before, after) = &self.templates[(n % self.templates.len() as u64) as usize];
        let mut alert = Vec::with_capacity(before.len() + DIGITS + after.len());
        alert.extend_from_slice(before);
        alert.extend_from_slice((FIRST + n).to_string().as_bytes());
        alert.extend_from_slice(after);
        alert
    }

    /// The alert whose size is nearest to this one, in bytes.
    pub fn near(&self, size: usize) -> Vec<u8> {
        let all = (0..self.templates.len() as u64).map(|n| self.nth(n));
        all.min_by_key(|alert| alert.len().abs_diff(size)).unwrap_or_default()
    }

    /// The same alerts, each of this many bytes: of them what is looked up and what says how bad it is, and a payload that fills
    /// them up.
    ///
    /// # Errors
    /// An alert is no JSON, or what is kept of it is longer.
    pub fn sized(&self, size: usize) -> Result<Self> {
        let one = |(before, after): &(Vec<u8>, Vec<u8>)| {
            let alert = [&before[..], FIRST.to_string().as_bytes(), after].concat();
            let mut alert: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&alert)?;
            let kept = ["timestamp", "flow_id", "event_type", "src_ip", "dest_ip", "proto"];
            let severity = alert.get("alert").and_then(|alert| alert.get("severity")).cloned();
            alert.retain(|name, _| kept.contains(&name.as_str()));
            alert.insert("alert".to_owned(), serde_json::json!({ "severity": severity }));
            alert.insert("payload".to_owned(), "".into());
            let length = serde_json::to_string(&alert)?.len();
            let fill = size.checked_sub(length).with_context(|| format!("an alert is longer than {size} bytes"))?;
            alert.insert("payload".to_owned(), "a payload, ".chars().cycle().take(fill).collect::<String>().into());
            template(&serde_json::to_string(&alert)?).context("an alert has no flow_id")
        };
        let templates = self.templates.iter().take(FEW).map(one).collect::<Result<Vec<_>>>()?;
        Ok(Self { templates, source: format!("{size} bytes"), mean: size as f64 })
    }

    /// The number of the alert that this record, or alert, is of.
    pub fn number(record: &[u8]) -> Option<u64> {
        let at = memchr::memmem::find(record, FIELD)? + FIELD.len();
        let digits = std::str::from_utf8(record.get(at..at + DIGITS)?).ok()?;
        digits.parse::<u64>().ok()?.checked_sub(FIRST)
    }
}

fn template(line: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let at = memchr::memmem::find(line.as_bytes(), FIELD)? + FIELD.len();
    let (before, rest) = line.split_at(at);
    let after = rest.trim_start_matches(|character: char| character.is_ascii_digit());
    Some((before.as_bytes().to_vec(), after.as_bytes().to_vec()))
}

/// The addresses that made alerts come from; the first [`LISTED`] are on the made block list.
fn sources() -> Vec<String> {
    let mut random = Rng::with_seed(1);
    (0..SOURCES).map(|_| address(&mut random)).collect()
}

fn address(random: &mut Rng) -> String {
    format!("{}.{}.{}.{}", random.u8(45..100), random.u8(..), random.u8(..), random.u8(1..255))
}

fn made() -> String {
    let (sources, mut random) = (sources(), Rng::with_seed(2));
    let signatures = ["ET SCAN Potential SSH Scan", "ET COMPROMISED Known Compromised or Hostile Host Traffic group 3"];
    let alert = |_| {
        let second = random.u32(..60);
        let time = format!("2023-09-03T06:08:{second:02}.667780+0300");
        let alert = serde_json::json!({
            "timestamp": time, "flow_id": FIRST, "in_iface": "ens18", "event_type": "alert",
            "src_ip": sources[random.usize(..sources.len())], "src_port": random.u16(1024..),
            "dest_ip": "192.168.55.199", "dest_port": 22, "proto": "TCP", "community_id": "1:rvFVt/Jv6PdebSgmg+guKMeuWSU=",
            "alert": {
                "action": "allowed", "gid": 1, "signature_id": 2_500_004, "rev": 6637,
                "signature": signatures[random.usize(..signatures.len())], "category": "Misc Attack",
                "severity": random.u8(1..4),
                "metadata": {
                    "affected_product": ["Any"], "attack_target": ["Any"], "created_at": ["2011_04_28"],
                    "deployment": ["Perimeter"], "signature_severity": ["Major"], "tag": ["COMPROMISED"],
                    "updated_at": ["2023_08_30"],
                },
            },
            "flow": { "pkts_toserver": 1, "pkts_toclient": 0, "bytes_toserver": 74, "bytes_toclient": 0, "start": time },
        });
        alert.to_string()
    };
    (0..MADE).map(alert).collect::<Vec<_>>().join("\n")
}

/// A block list: addresses, each with the number of lists that it is on.
pub fn block_list() -> String {
    let mut random = Rng::with_seed(3);
    let mut list = String::from("# IP\tnumber of lists\n");
    let listed = sources().into_iter().take(LISTED);
    let others = std::iter::repeat_with(|| format!("{}.{}", random.u8(101..220), address(&mut random)));
    let others = others.map(|text| text.rsplit_once('.').map_or_else(String::new, |(start, _)| start.to_owned()));
    for (place, address) in listed.chain(others).take(BLOCK_LIST).enumerate() {
        // Writing into a string cannot fail.
        let _ = writeln!(list, "{address}\t{}", 1 + place % 9);
    }
    list
}

/// Countries by prefix, for where there is no database of them.
pub fn countries() -> String {
    let codes = ["NL", "DE", "US", "CN", "FR", "BR", "IN", "VN"];
    let mut countries = String::from("network,country_code\n");
    for network in 0..16_384_u32 {
        let (first, second) = (1 + network / 128, 2 * (network % 128));
        let _ = writeln!(countries, "{first}.{second}.0.0/15,{}", codes[network as usize % codes.len()]);
    }
    countries
}

/// The machines that are attacked, and others.
pub fn assets() -> String {
    let mut assets = String::from("ip,hostname,owner,role,criticality\n192.168.55.199,web01,it-ops,web server,high\n");
    for host in 1..500 {
        let _ = writeln!(assets, "10.0.{}.{},pc{host:03},staff,workstation,low", host / 250, 1 + host % 250);
    }
    assets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_is_another_one_and_says_its_number() {
        let templates = made().lines().map(|line| template(line).unwrap()).collect();
        let alerts = Alerts { templates, source: String::new(), mean: 0.0 };
        for n in [0, 1, 999, 1000, 123_456_789] {
            let alert = alerts.nth(n);
            assert_eq!(Alerts::number(&alert), Some(n));
            assert!(serde_json::from_slice::<serde_json::Value>(&alert).is_ok());
        }
    }

    #[test]
    fn made_tables_have_what_the_alerts_ask_for() {
        let list = block_list();
        assert_eq!(list.lines().count(), BLOCK_LIST + 1);
        assert!(list.contains(&sources()[0]) && !list.contains(&format!("\n{}\t", sources()[LISTED])));
    }
}
