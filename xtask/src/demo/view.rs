//! What the demo shows: a table of the records, the dead letters with their reasons, and what to try next.
//!
//! It reads records as any other reader does, by field names, and takes what is missing as unknown.

use std::fmt::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table};
use serde_json::Value;

use super::{Dead, Place};
use crate::setup::{Project, seconds};

/// Shows everything, on standard output.
pub(super) fn show(project: &Project, place: &Place, records: &[Value], dead: &[Dead], sent: usize, took: Duration) {
    let folder = project.shown(&place.folder);
    println!();
    println!("{}", records_table(records));
    println!();
    println!("{sent} alerts in {}: {} stored, {} dead letters.", seconds(took), records.len(), dead.len());
    println!("Records  {folder}/queue/processed/    Log  {folder}/run.log");
    println!();
    println!("Dead letters  {folder}/queue/errors/");
    println!("{}", dead_table(dead));
    println!();
    println!("{}", next(project, place, records, dead));
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING.header_separator(comfy_table::LineStyle::none().fill('─').junction('─')));
    table.set_content_arrangement(ContentArrangement::Dynamic);
    // A pipe has no width; a terminal says its own.
    if !table.is_tty() {
        table.set_width(120);
    }
    table.set_header(header.iter().map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
    table
}

fn records_table(records: &[Value]) -> Table {
    let mut table = table(&["alert", "source", "reputation", "asset", "country", "verdict", "time"]);
    for record in records {
        let label = record["verdict"]["label"].as_str().unwrap_or("-");
        let verdict = Cell::new(format!("{label} {}", record["verdict"]["score"]));
        table.add_row([
            Cell::new(record["id"].as_str().unwrap_or("-")),
            Cell::new(source(record)),
            Cell::new(reputation(&record["enrichment"]["ip-reputation"])),
            Cell::new(asset(&record["enrichment"]["asset"])),
            Cell::new(country(&record["enrichment"]["geo"])),
            match label {
                "malicious" => verdict.fg(Color::Red),
                "suspicious" => verdict.fg(Color::Yellow),
                "benign" => verdict.fg(Color::Green),
                _ => verdict,
            },
            Cell::new(milliseconds(&record["pipeline"]["duration_us"])).set_alignment(CellAlignment::Right),
        ]);
    }
    table
}

fn dead_table(dead: &[Dead]) -> Table {
    let mut table = table(&["file", "reason", "step", "detail"]);
    for Dead { file, letter } in dead {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let cells = [file.clone(), text(&letter["reason"]), text(&letter["step"]["step"]), text(&letter["detail"])];
        table.add_row(cells);
    }
    // A file's name in two pieces cannot be copied.
    if let Some(file) = table.column_mut(0) {
        file.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// Where the alert came from: the first source among the observables.
fn source(record: &Value) -> &str {
    let of_role = |observable: &&Value| observable["role"] == "source";
    array(&record["observables"]).iter().find(of_role).and_then(|source| source["value"].as_str()).unwrap_or("-")
}

fn reputation(reputation: &Value) -> String {
    let categories: Vec<_> = array(&reputation["categories"]).iter().filter_map(Value::as_str).collect();
    match (categories.is_empty(), reputation["score"].as_u64()) {
        (_, None) => "-".into(),
        (true, _) => "not listed".into(),
        (false, Some(0)) => categories.join(", "),
        (false, Some(score)) => format!("{} {score}", categories.join(", ")),
    }
}

/// The most critical machine.
fn asset(asset: &Value) -> String {
    let highest = &asset["criticality"];
    let assets = array(&asset["assets"]).iter().map(|known| &known["asset"]);
    match assets.clone().find(|asset| asset["criticality"] == *highest).or_else(|| assets.clone().next()) {
        Some(asset) => {
            let name = asset["hostname"].as_str().or_else(|| asset["ip"].as_str()).unwrap_or("?");
            asset["criticality"]
                .as_str()
                .map_or_else(|| name.to_owned(), |criticality| format!("{name}, {criticality}"))
        }
        None => "-".into(),
    }
}

/// The country of the source; of what is nowhere in the world, what it is.
fn country(geo: &Value) -> String {
    let addresses = array(&geo["addresses"]);
    let is_source = |located: &&Value| array(&located["roles"]).iter().any(|role| role == "source");
    let Some(located) = addresses.iter().find(is_source).or_else(|| addresses.first()) else { return "-".into() };
    match (located["country"].as_str().or_else(|| located["country_code"].as_str()), located["scope"].as_str()) {
        (Some(country), _) => country.into(),
        (None, Some("public") | None) => "unknown".into(),
        (None, Some(scope)) => format!("({scope})"),
    }
}

fn milliseconds(microseconds: &Value) -> String {
    microseconds.as_f64().map_or_else(|| "-".into(), |duration| format!("{:.1} ms", duration / 1000.0))
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Commands to go on with. All of them work as they stand, typed where the demo was.
fn next(project: &Project, place: &Place, records: &[Value], dead: &[Dead]) -> String {
    let folder = project.shown(&place.folder);
    let dossier = format!("{} --config {folder}/dossier.toml", project.shown(&place.dossier));
    let redis = format!("{} --config {folder}/redis.toml", project.shown(&place.dossier));
    let mut commands: Vec<(&str, Vec<String>)> = Vec::new();
    if let Some(id) = records.first().and_then(|record| record["id"].as_str()) {
        let file = format!("{folder}/queue/processed/alert-{id}.json");
        commands.push(("Read the whole dossier of the worst one", vec![reader(&file)]));
    }
    let mut letters = vec![format!("{dossier} dlq list")];
    if let Some(id) = dead.iter().find_map(|dead| dead.letter["id"].as_str()) {
        letters.push(format!("{dossier} dlq show {id}"));
    }
    commands.push(("See what failed, and why", letters));
    let again = vec![format!("{dossier} dlq replay --reason timeout"), format!("{dossier} run --until-empty")];
    commands.push(("Try the one that ran out of time again (it will again: its plugin loops on purpose)", again));
    let own = format!(r#"echo '{{"id": "mine", "src_ip": "185.220.101.1", "hostname": "dc01"}}' | {dossier} send -"#);
    commands.push(("Send an alert of your own", vec![own, format!("{dossier} run --until-empty")]));
    let streams = vec![
        "redis-server --daemonize yes --save ''".into(),
        format!("{redis} send {folder}/alerts.ndjson"),
        format!("{redis} run --until-empty"),
        "redis-cli XLEN alerts:enriched".into(),
        "redis-cli shutdown nosave".into(),
    ];
    commands.push(("The same on Redis Streams", streams));
    let mut text = String::from("Try next:");
    for (what, lines) in commands {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  # {what}\n  {}", lines.join("\n  "));
    }
    text
}

/// A command that shows a JSON file, with what this machine has.
fn reader(file: &str) -> String {
    let has = |program: &str| {
        let mut command = Command::new(program);
        command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    match (has("jq"), has("python3")) {
        (true, _) => format!("jq . {file}"),
        (false, true) => format!("python3 -m json.tool {file}"),
        (false, false) => format!("cat {file}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_what_the_record_says() {
        let record = json!({
            "observables": [{"type": "ip", "role": "destination", "value": "10.0.0.1"}, {"type": "ip", "role": "source", "value": "192.0.2.1"}],
        });
        assert_eq!(source(&record), "192.0.2.1");
        assert_eq!(
            reputation(&json!({"score": 93, "categories": ["tor-exit", "blocklist"]})),
            "tor-exit, blocklist 93"
        );
        assert_eq!(reputation(&json!({"score": 0, "categories": ["trusted"]})), "trusted");
        assert_eq!(reputation(&json!({"score": 0, "categories": []})), "not listed");
        let assets = json!({"criticality": "high", "assets": [
            {"asset": {"hostname": "p1", "criticality": "low"}}, {"asset": {"hostname": "vpn", "criticality": "high"}},
        ]});
        assert_eq!(asset(&assets), "vpn, high");
        let located = json!({"addresses": [
            {"roles": ["destination"], "scope": "private"}, {"roles": ["source"], "scope": "public", "country": "Germany"},
        ]});
        assert_eq!(country(&located), "Germany");
        assert_eq!(country(&json!({"addresses": [{"roles": ["source"], "scope": "private"}]})), "(private)");
        assert_eq!(milliseconds(&json!(1234)), "1.2 ms");
    }

    #[test]
    fn what_is_missing_is_a_dash() {
        let nothing = json!({});
        assert_eq!([source(&nothing), &reputation(&nothing), &asset(&nothing), &country(&nothing)], ["-"; 4]);
    }
}
