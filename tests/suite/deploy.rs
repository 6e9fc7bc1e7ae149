//! What lies in `deploy/`: the unit, checked by systemd's own tools, and the dashboard, each query of which is asked of a real Prometheus
//! that scrapes a real host.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use dossier_tests::alerts;
use dossier_tests::host::{Host, Site, built, root, wait_for};
use dossier_tests::not_run::not_run;
use dossier_tests::prometheus::Prometheus;
use dossier_tests::threat_api::ThreatApi;
use serde_json::Value;

/// A host of which every metric that a dashboard shows has something to tell.
fn busy(api: &ThreatApi) -> (Site, Host) {
    let url = api.url();
    let steps = alerts::FOUR_STEPS.replace(
        "[[step]]\nplugin = \"asset\"",
        &format!(
            "[http.threats]\nurl = \"{url}/api/v2/\"\nprivate = true\nheaders = {{ Key = \"only-for-trying\" }}\n\
             [[step]]\nname = \"api\"\nplugin = \"ip-reputation\"\nhttp = [\"threats\"]\nrequired = false\nretries = 1\n\
             settings = {{ api = {{ url = \"{url}\" }} }}\n[[step]]\nplugin = \"asset\""
        ),
    );
    assert!(steps.contains("threats"), "the steps are not where they were");
    let site = Site::new(&steps);
    for plugin in ["ip-reputation", "asset", "geo", "verdict"] {
        site.install(plugin);
    }
    site.write("blocklist.tsv", alerts::BLOCK_LIST.as_bytes());
    site.write("assets.csv", alerts::ASSETS.as_bytes());
    site.write("countries.csv", alerts::COUNTRIES.as_bytes());
    let host = site.start();
    host.admin();
    (site, host)
}

/// The queries of a dashboard with the titles of their panels.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((title.to_owned(), target["expr"].as_str().expect("an expression").to_owned()));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().expect("annotations") {
        found.push(("an annotation".to_owned(), annotation["expr"].as_str().expect("an expression").to_owned()));
    }
    found
}

/// A query as Grafana would send it.
fn filled_in(query: &str) -> String {
    query.replace("$__rate_interval", "10s").replace("$job", ".*").replace("$instance", ".*")
}

#[test]
fn every_query_of_the_dashboard_gives_data() {
    let test = "every_query_of_the_dashboard_gives_data";
    let text = std::fs::read_to_string(root().join("deploy/grafana/dossier.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
    let queries = queries(&dashboard);
    assert!(queries.len() > 30, "{}", queries.len());
    let api = ThreatApi::start(&[]);
    let (site, host) = busy(&api);
    let prometheus = match Prometheus::scraping(&host.admin(), &[]) {
        Ok(prometheus) => prometheus,
        Err(why) => return not_run(test, &format!("{why:#}")),
    };
    let mut missing: BTreeMap<String, String> = queries.into_iter().map(|(title, query)| (query, title)).collect();
    let (mut sent, mut changed) = (0, false);
    // Rates need some scrapes while something happens.
    wait_for(&format!("data for {missing:#?}"), || {
        site.send(&alerts::suricata(sent..sent + 20));
        site.send(b"no alert\n");
        sent += 20;
        // A change of the configuration is something that the dashboard marks, when it was scraped without it before; the first
        // scrape may take its time.
        let scraped =
            prometheus.query("dossier_config_loaded_timestamp_seconds").is_ok_and(|series| !series.is_empty());
        if scraped && !changed {
            changed = true;
            let config = std::fs::read_to_string(site.path("dossier.toml")).expect("a configuration");
            std::fs::write(site.path("dossier.toml"), config + "# another one\n").expect("it can be written");
        }
        std::thread::sleep(Duration::from_millis(500));
        missing.retain(|query, title| {
            let series = prometheus.query(&filled_in(query)).unwrap_or_else(|why| panic!("{title}: {why:#}"));
            !series.iter().any(|series| series["value"][1].as_str().is_some_and(|value| value != "NaN"))
        });
        if sent >= 400 {
            assert!(missing.is_empty(), "no data for {missing:#?}");
        }
        missing.is_empty().then_some(())
    });
}

#[test]
fn every_panel_says_what_it_shows_and_stands_beside_the_others() {
    let text = std::fs::read_to_string(root().join("deploy/grafana/dossier.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
    let mut taken = BTreeMap::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        let at = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        assert!(at("x") + at("w") <= 24, "{title} is too wide");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                let other = taken.insert((x, y), title);
                assert_eq!(other, None, "{title} lies upon another panel");
            }
        }
    }
}

#[test]
fn the_unit_is_one_that_systemd_takes_and_finds_well_confined() {
    let test = "the_unit_is_one_that_systemd_takes_and_finds_well_confined";
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return not_run(test, "there is no systemd-analyze");
    }
    let unit = std::fs::read_to_string(root().join("deploy/systemd/dossier.service")).expect("the unit");
    // It names the program where it will lie, which is not here.
    let unit = unit.replace("/usr/local/bin/dossier", &built("release/dossier").display().to_string());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("dossier.service");
    std::fs::write(&file, unit).expect("the unit can be written");
    for arguments in [&["verify", "--man=no"][..], &["security", "--offline=true", "--threshold=20"][..]] {
        let output = Command::new("systemd-analyze").args(arguments).arg(&file).output().expect("systemd-analyze runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(!said.contains("Unknown key") && !said.contains("ignoring"), "{said}");
    }
}

#[test]
fn the_configurations_in_deploy_are_in_order() {
    let site = Site::new("");
    let unit = std::fs::read_to_string(root().join("deploy/systemd/dossier.toml")).expect("a configuration");
    // The frame that the chart's values begin with; whole ones are in the tests of the chart.
    let values = std::fs::read_to_string(root().join("deploy/helm/dossier/values.yaml")).expect("the values");
    let chart: String = values
        .lines()
        .skip_while(|line| *line != "config: |")
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with("  "))
        .map(|line| format!("{}\n", line.trim_start_matches("  ")))
        .collect();
    assert!(chart.contains("[queue]"), "{chart}");
    for config in [unit, chart] {
        site.write("dossier.toml", config.as_bytes());
        let output = site
            .command(&["config", "show"])
            .env("REDIS_URL", "redis://:s3cret@redis:6379/0")
            .env("DOSSIER_ADMIN_TOKEN", "s3cret-s3cret-s3cret")
            .output()
            .expect("dossier runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains("s3cret"), "{said}");
    }
}

/// Compose copies a configuration or a secret whose text stands in its file into the container, and refuses to where that is read-only.
#[test]
fn no_service_of_the_compose_file_is_read_only_and_has_a_configuration_copied_into_it() {
    let text = std::fs::read_to_string(root().join("docker-compose.yml")).expect("the compose file");
    let services = text.split_once("\nservices:\n").expect("services").1.split_once("\nconfigs:\n").expect("configs").0;
    let (mut seen, mut read_only, mut copied) = (0, false, false);
    // One more name closes the last service.
    for line in services.lines().chain(["  end:"]) {
        let is_name = line.starts_with("  ") && !line[2..].starts_with([' ', '#']) && line.ends_with(':');
        if is_name {
            assert!(!(read_only && copied), "the service before {line:?} is read_only and has configs or secrets");
            seen += usize::from(read_only || copied);
            (read_only, copied) = (false, false);
        }
        read_only |= line == "    read_only: true";
        copied |= line == "    configs:" || line == "    secrets:";
    }
    assert_eq!(seen, 5, "it does not see what is there");
}
