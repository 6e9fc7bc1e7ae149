//! The benchmark works: every row takes its alerts, and those that enrich say the same; what else is measured comes to figures. How
//! fast anything is is no test's affair.

use std::process::Command;

use dossier_tests::host::built;
use serde_json::Value;

/// What a part of the benchmark prints at its end.
fn report(arguments: &[&str]) -> Value {
    let output = Command::new(built("release/dossier-bench")).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn every_row_of_the_benchmark_takes_its_alerts_and_says_the_same() {
    let report = report(&["measure", "--quick"]);
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["floor", "queue", "native", "fresh", "reuse", "directory"]);
    for row in rows {
        for figure in ["host_us", "bytes_per_second", "memory"] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{figure} of {row}");
        }
        assert!(row["half_load"][1].as_f64().unwrap() >= row["half_load"][0].as_f64().unwrap(), "{row}");
    }
}

#[test]
fn what_the_benchmark_aims_at_comes_to_figures() {
    let report = report(&["targets", "--quick"]);
    let targets = report["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 13, "{targets:?}");
    for target in targets {
        // Memory may well shrink in a short run, and beside other hosts, which share pages of the program; the others cannot be nothing.
        let memory = target["unit"] == "MB";
        assert!(memory || target["figure"].as_f64().unwrap() > 0.0, "{target}");
        assert!(target["at_most"].as_f64().unwrap() > 0.0, "{target}");
    }
    let tenths = report["tenths"].as_array().unwrap();
    assert_eq!((tenths.len(), &tenths[9]["alerts"]), (10, &20_000.into()));
}

#[test]
fn the_benchmark_changes_one_thing_at_a_time() {
    let report = report(&["scaling", "--quick", "--only", "hosts,steps"]);
    let cases = report["cases"].as_array().unwrap();
    let cases: Vec<_> = cases.iter().map(|case| (&case["thing"], case["value"].as_str().unwrap())).collect();
    let (hosts, steps) = (&Value::from("hosts in one group"), &Value::from("steps"));
    assert_eq!(cases, [(hosts, "1"), (hosts, "2"), (steps, "1"), (steps, "16")]);
}
