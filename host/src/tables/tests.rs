use std::path::Path;
use std::time::Instant;

use super::*;

/// A table of this text; the configuration is that of a list and can be changed.
fn load(text: impl AsRef<[u8]>, change: impl FnOnce(&mut TableConfig)) -> Result<Table, TableError> {
    load_within(text, Bounds::default(), change)
}

fn load_within(
    text: impl AsRef<[u8]>,
    bounds: Bounds,
    change: impl FnOnce(&mut TableConfig),
) -> Result<Table, TableError> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = TableConfig {
        file: folder.path().join("table"),
        format: TableFormat::List,
        columns: None,
        key: Vec::new(),
        comment: Some('#'),
        max_age: None,
        line: 1,
    };
    std::fs::write(&config.file, text).unwrap();
    change(&mut config);
    Table::load_within(&config, bounds)
}

fn csv(key: &'static [&'static str]) -> impl FnOnce(&mut TableConfig) {
    move |config| {
        config.format = TableFormat::Csv;
        config.key = key.iter().map(|&key| key.to_owned()).collect();
    }
}

fn row(table: &Table, key: &str) -> Option<String> {
    table.lookup(key).unwrap().map(Cow::into_owned)
}

const ASSETS: &str = "ip,hostname,owner,role,criticality\n\
    # the network, and a machine in it\n\
    10.0.0.0/8,,IT,network,1\n\
    10.0.0.5, web-01 ,\"Ops, Oslo\",web server,4\n\
    2001:db8::/32,,IT,network,007\n\
    ,Web-02,Ops,web server,3\n";

#[test]
fn either_column_finds_the_row_of_a_csv() {
    let table = load(ASSETS, csv(&["ip", "hostname"])).unwrap();
    let web = r#"{"ip":"10.0.0.5","hostname":"web-01","owner":"Ops, Oslo","role":"web server","criticality":4}"#;
    assert_eq!(row(&table, "10.0.0.5").as_deref(), Some(web));
    assert_eq!(row(&table, "WEB-01").as_deref(), Some(web));
    assert_eq!(
        row(&table, "10.9.9.9").as_deref(),
        Some(r#"{"ip":"10.0.0.0/8","hostname":"","owner":"IT","role":"network","criticality":1}"#)
    );
    assert!(row(&table, "2001:db8::1").unwrap().contains(r#""criticality":"007""#));
    assert!(row(&table, "web-02").is_some());
    assert_eq!(row(&table, ""), None, "an empty cell is no key");
    assert_eq!(row(&table, "192.0.2.1"), None);
    assert_eq!((table.rows(), table.duplicates()), (Some(4), 0));
    assert_eq!(table.sha256(), crate::digest::sha256_hex(ASSETS.as_bytes()));
}

#[test]
fn of_two_rows_with_one_key_the_last_wins_and_is_counted() {
    let table = load("ip,n\n10.0.0.1,1\n10.0.0.2,2\n::ffff:10.0.0.1,3\n", csv(&["ip"])).unwrap();
    assert!(row(&table, "10.0.0.1").unwrap().contains(r#""n":3"#));
    assert!(row(&table, "10.0.0.2").unwrap().contains(r#""n":2"#));
    assert_eq!((table.rows(), table.duplicates()), (Some(3), 1));
    let table = load("ip,name\nhost,host\n", csv(&["ip", "name"])).unwrap();
    assert_eq!(table.duplicates(), 0, "a row is no duplicate of itself");
}

#[test]
fn a_tsv_without_a_header_has_its_columns_from_the_configuration() {
    let text = "# a block list\n#\n192.0.2.1\t11\n198.51.100.0/24\t3\n\"quoted\t1\n";
    let table = load(text, |config| {
        config.format = TableFormat::Tsv;
        config.columns = Some(vec!["ip".into(), "lists".into()]);
        config.key = vec!["ip".into()];
    })
    .unwrap();
    assert_eq!(row(&table, "192.0.2.1").as_deref(), Some(r#"{"ip":"192.0.2.1","lists":11}"#));
    assert_eq!(row(&table, "198.51.100.77").as_deref(), Some(r#"{"ip":"198.51.100.0/24","lists":3}"#));
    assert!(row(&table, "\"quoted").is_some(), "a quote means nothing in a tsv");
    assert_eq!(table.rows(), Some(3));
}

#[test]
fn a_list_has_prefixes_names_and_trailing_comments() {
    let text = "\u{feff}203.0.113.0/24 # a network\n\n  # nothing\nexample.com\t#x\nhttps://a.example/#part\n";
    let table = load(text, |_| {}).unwrap();
    assert_eq!(row(&table, "203.0.113.9").as_deref(), Some(r#"{"key":"203.0.113.0/24"}"#));
    assert_eq!(row(&table, "EXAMPLE.com").as_deref(), Some(r#"{"key":"example.com"}"#));
    assert!(row(&table, "https://a.example/#part").is_some(), "a fragment is no comment");
    assert_eq!(table.rows(), Some(3));
    let table = load("a #b\n", |config| config.comment = None).unwrap();
    assert!(row(&table, "a #b").is_some());
}

#[test]
fn a_jsonl_row_comes_back_as_it_stands() {
    let text = "{\"ip\": \"192.0.2.1\", \"tags\": [\"a\"]}\n# no row\n\n{\"ip\":null,\"asn\":64500}\n{\"other\":1}\n";
    let jsonl = |config: &mut TableConfig| {
        config.format = TableFormat::Jsonl;
        config.key = vec!["ip".into(), "asn".into()];
    };
    let table = load(text, jsonl).unwrap();
    assert_eq!(row(&table, "192.0.2.1").as_deref(), Some(r#"{"ip": "192.0.2.1", "tags": ["a"]}"#));
    assert_eq!(row(&table, "64500").as_deref(), Some(r#"{"ip":null,"asn":64500}"#));
    assert_eq!(table.rows(), Some(2));

    for (text, why) in [
        ("{\"ip\":\"a\"}\n[1]\n", ":2: is no JSON object"),
        ("{\"ip\":\"\\ud800\"}\n", ":1: is no JSON object"),
        ("{\"ip\":[]}\n", ":1: its \"ip\" is neither"),
        ("{\"address\":\"192.0.2.1\"}\n", "no row has a value in \"ip\" or \"asn\""),
    ] {
        let error = load(text, jsonl).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn an_error_names_file_and_line_and_what_to_do() {
    for (text, why) in [
        ("ip,name\n10.0.0.1,a\n10.0.0.2\n", "table:3: has 1 cells where the table has 2 columns"),
        ("address,name\n10.0.0.1,a\n", "table: has no column \"ip\", its header says: address, name"),
        ("ip,ip\n10.0.0.1,a\n", "table: has the column \"ip\" twice"),
        ("ip,name\n,a\n,b\n", "table: no row has a value in \"ip\""),
        ("", "table: is empty (0 bytes)"),
    ] {
        let error = load(text, csv(&["ip"])).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let error = load(b"ip,name\n10.0.0.1,a\n10.0.0.2,\xff\n", csv(&["ip"])).unwrap_err().to_string();
    assert!(error.contains("table:3: is not UTF-8"), "{error}");
    let error = load(b"a\n\xff\n", |_| {}).unwrap_err().to_string();
    assert!(error.contains("table:2: is not UTF-8"), "{error}");
    let error = load("a\n", |config| config.file = "/nowhere/table.csv".into()).unwrap_err().to_string();
    assert!(error.contains("/nowhere/table.csv cannot be read: No such file"), "{error}");
    let error = load("a\n", |config| config.file = "/dev/zero".into()).unwrap_err().to_string();
    assert!(error.contains("/dev/zero: is no regular file"), "{error}");
    let error = load("a\n", |config| config.format = TableFormat::Mmdb).unwrap_err().to_string();
    assert!(error.contains("table: is no sound MaxMind database"), "{error}");
}

#[test]
fn a_header_with_a_byte_order_mark_and_crlf_is_read() {
    let table = load("\u{feff}ip,name\r\n10.0.0.1,a\r\n", csv(&["ip"])).unwrap();
    assert_eq!(row(&table, "10.0.0.1").as_deref(), Some(r#"{"ip":"10.0.0.1","name":"a"}"#));
}

/// A file in which everything is as large as the bound of a row, and one byte larger.
#[test]
fn the_bound_of_a_row_is_obeyed_and_violated() {
    let bounds = Bounds { row: 1000, ..Bounds::default() };
    let name = |length: usize| "n".repeat(length);
    for (length, fits) in [(999, true), (1000, false)] {
        let list = load_within(format!("a\n{}\nb\n", name(length)), bounds, |_| {});
        assert_eq!(list.is_ok(), fits, "list, {length}");
        let jsonl = load_within(format!("{{\"k\":\"{}\"}}\n", name(length - 8)), bounds, |config| {
            config.format = TableFormat::Jsonl;
            config.key = vec!["k".into()];
        });
        assert_eq!(jsonl.is_ok(), fits, "jsonl, {length}");
    }
    let many_short: String = (0..1000).map(|n| format!("name-{n},x\n")).collect();
    assert_eq!(load_within(format!("k,v\n{many_short}"), bounds, csv(&["k"])).unwrap().rows(), Some(1000));
    assert!(load_within(format!("k,v\na,{}\n", name(900)), bounds, csv(&["k"])).is_ok());
    let error = load_within(format!("k,v\nb,c\na,{}\n", name(1100)), bounds, csv(&["k"])).unwrap_err().to_string();
    assert!(error.contains("table:3: a row is longer than 1000 bytes"), "{error}");
    // A quote that is never closed takes the rest of the file for one cell.
    let error = load_within(format!("k,v\na,\"{many_short}"), bounds, csv(&["k"])).unwrap_err().to_string();
    assert!(error.contains("table:2: a row is longer than 1000 bytes"), "{error}");
}

#[test]
fn the_bounds_of_file_and_memory_are_obeyed_and_violated() {
    let text: String = (0..1000).map(|n| format!("name-{n}\n")).collect();
    let file = |file| Bounds { file, ..Bounds::default() };
    assert!(load_within(&text, file(text.len() as u64), |_| {}).is_ok());
    let error = load_within(&text, file(text.len() as u64 - 1), |_| {}).unwrap_err().to_string();
    assert!(error.contains("is larger than"), "{error}");
    let memory = |memory| Bounds { memory, ..Bounds::default() };
    assert!(load_within(&text, memory(1 << 20), |_| {}).is_ok());
    let error = load_within(&text, memory(10_000), |_| {}).unwrap_err().to_string();
    assert!(error.contains("take more than 10000 bytes in memory"), "{error}");
}

/// As large as a real block list: 120,000 rows.
#[test]
fn a_large_block_list_takes_little_memory_and_answers_at_once() {
    let text: String = (0..120_000_u32)
        .map(|n| format!("{}\t{}\n", std::net::Ipv4Addr::from(n.wrapping_mul(2_654_435_761)), n % 9))
        .collect();
    let table = load(&text, |config| {
        config.format = TableFormat::Tsv;
        config.columns = Some(vec!["ip".into(), "lists".into()]);
        config.key = vec!["ip".into()];
    })
    .unwrap();
    assert_eq!((table.rows(), table.duplicates()), (Some(120_000), 0));
    let Content::Rows { rows, index, .. } = &table.content else { panic!("a tsv has rows") };
    let size = rows.size() + index.size();
    // Addresses that are spread evenly take the most; real block lists are denser and take two thirds of it.
    assert!(size < 12 << 20, "{size} bytes");

    let keys: Vec<String> = text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect();
    let begun = Instant::now();
    let found = keys.iter().filter(|key| matches!(table.lookup(key), Ok(Some(_)))).count();
    let each = begun.elapsed() / 120_000;
    assert_eq!(found, 120_000);
    // It is a fraction of a microsecond; the bound is for machines that do something else as well.
    assert!(each.as_micros() < 20, "{each:?} for a look-up");
    println!("{size} bytes, {each:?} for a look-up");
}

/// Data that may lie beside the project; the same is asserted above on data of the project's own.
fn optional(name: &str) -> Option<std::path::PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if !file.exists() {
        println!("skipped: the optional data ../shared/data/{name} is not there");
    }
    file.exists().then_some(file)
}

#[test]
fn a_real_block_list_holds_25_of_92_real_sources() {
    let (Some(file), Some(alerts)) = (optional("ipsum.txt"), optional("suricata-alerts.ndjson")) else { return };
    let begun = Instant::now();
    let table = load("", |config| {
        config.file = file;
        config.format = TableFormat::Tsv;
        config.columns = Some(vec!["ip".into(), "lists".into()]);
        config.key = vec!["ip".into()];
    })
    .unwrap();
    let took = begun.elapsed();
    let alerts = std::fs::read_to_string(alerts).unwrap();
    let sources: std::collections::BTreeSet<String> = alerts
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["src_ip"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(sources.len(), 92);
    assert_eq!(sources.iter().filter(|source| row(&table, source).is_some()).count(), 25);
    let Content::Rows { rows, index, .. } = &table.content else { panic!("a tsv has rows") };
    println!(
        "{} rows, {} duplicates, {} + {} bytes, {took:?}",
        rows.len(),
        table.duplicates(),
        rows.size(),
        index.size()
    );
}

#[test]
fn real_databases_of_both_layouts_answer() {
    let mmdb = |file| load("", |config| (config.file, config.format) = (file, TableFormat::Mmdb)).unwrap();
    if let Some(file) = optional("country-ipv4.mmdb") {
        let begun = Instant::now();
        let table = mmdb(file);
        println!("loaded and verified in {:?}", begun.elapsed());
        assert_eq!(row(&table, "8.8.8.8").as_deref(), Some(r#"{"country_code":"US"}"#));
        assert_eq!(row(&table, "2001:db8::1"), None);
    }
    if let Some(file) = optional("GeoLite2-City-Test.mmdb") {
        let record: serde_json::Value = serde_json::from_str(&row(&mmdb(file), "2.125.160.216").unwrap()).unwrap();
        assert_eq!(record["country"]["iso_code"], "GB");
        assert_eq!(record["city"]["names"]["en"], "Boxford");
    }
}
