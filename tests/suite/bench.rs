//! The benchmark works: every row takes its alerts, and those that enrich say the same. How fast they are is no test's affair.

use std::process::Command;

use dossier_tests::host::built;

#[test]
fn every_row_of_the_benchmark_takes_its_alerts_and_says_the_same() {
    let output = Command::new(built("release/dossier-bench")).args(["measure", "--quick"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["floor", "native", "fresh", "reuse", "directory"]);
    for row in rows {
        for figure in ["host_us", "bytes_per_second", "memory"] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{figure} of {row}");
        }
        assert!(row["half_load"][1].as_f64().unwrap() >= row["half_load"][0].as_f64().unwrap(), "{row}");
    }
}
