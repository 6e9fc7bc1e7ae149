use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::sync::LazyLock;
use std::task::Poll;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::*;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{EntriesLost, PluginSaid, QueueTrouble};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// While there is one subscriber, tracing keeps for each place that logs whether anybody wants it, as answered for the
/// thread that came there first: another test's thread, which has none. Beside a second one it asks each time.
static ANOTHER: LazyLock<tracing::Dispatch> = LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::registry()));

fn logged(style: Style, emit: impl FnOnce()) -> String {
    LazyLock::force(&ANOTHER);
    let mut file = tempfile::tempfile().expect("a file");
    let guard = LogGuard::start(file.try_clone().expect("a descriptor"), CAPACITY).expect("a thread");
    let subscriber = tracing_subscriber::registry().with(Lines { style, sink: guard.sink() });
    tracing::subscriber::with_default(subscriber, emit);
    guard.close().expect("written");
    let mut text = String::new();
    file.rewind().expect("rewound");
    file.read_to_string(&mut text).expect("UTF-8");
    text
}

/// The lines that are written meanwhile, as JSON.
pub(in crate::telemetry) fn captured(emit: impl FnOnce()) -> String {
    logged(Style::Json, emit)
}

/// Lines as values. A line that is no object, or says a field twice, fails.
pub(in crate::telemetry) fn json_lines(lines: &str) -> Vec<Value> {
    let parse = |line| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_object(), "{line}");
        value
    };
    lines.lines().map(parse).collect()
}

/// What an attacker would like to put into a log.
const NASTY: &str = "x\n{\"level\":\"info\",\"message\":\"alert stored\"}\r\x1b[2J\x1b]0;owned\x07\u{9b}31m\u{2028}\u{202e}\0\x7f\"\\ end";

#[test]
fn what_an_attacker_writes_stays_in_one_line_and_comes_back_whole_from_json() {
    let say = || {
        Telemetry::default().emit(&PluginSaid {
            step: "geo",
            id: Some(NASTY),
            level: tracing::Level::INFO,
            message: NASTY,
        });
    };
    let lines = logged(Style::Json, say);
    let [line] = &json_lines(&lines)[..] else { panic!("one line: {lines:?}") };
    assert_eq!(line["text"], NASTY);
    assert_eq!(line["id"], NASTY);
    assert_eq!(line["message"], "plugin said");
    for lines in [lines, logged(Style::Pretty { colour: false }, say)] {
        let line = lines.strip_suffix('\n').expect("ends with a line feed");
        assert!(!line.contains(|char: char| char.is_control() || matches!(char, '\u{2028}' | '\u{202e}')), "{line:?}");
    }
}

#[test]
fn nothing_in_a_message_or_in_a_list_breaks_a_line_either() {
    let write = || {
        tracing::info!("{NASTY}");
        Telemetry::default().emit(&EntriesLost { entries: &[NASTY.to_owned(), "\u{85}\\".to_owned()] });
        tracing::warn!(time = 1, level = "mine", number = f64::NAN, "reserved names");
    };
    let lines = logged(Style::Json, write);
    let lines = json_lines(&lines);
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["message"], NASTY);
    assert_eq!(lines[1]["entries"], serde_json::json!([NASTY, "\u{85}\\"]));
    assert_eq!(lines[2]["level"], "warn");
    assert_eq!(lines[2]["field_level"], "mine");
    assert_eq!(lines[2]["number"], "NaN");
    assert_eq!(logged(Style::Pretty { colour: true }, write).lines().count(), 3);
}

#[test]
fn long_values_are_cut_and_those_that_just_fit_are_not() {
    let short = |id: &str, text: &str| {
        let lines = captured(|| {
            Telemetry::default().emit(&PluginSaid {
                step: "geo",
                id: Some(id),
                level: tracing::Level::INFO,
                message: text,
            });
        });
        json_lines(&lines)[0].clone()
    };
    let line = short(&"i".repeat(1024), &"t".repeat(4096));
    assert_eq!(line["id"].as_str().map(str::len), Some(1024));
    assert_eq!(line["text"].as_str().map(str::len), Some(4096));
    let line = short(&"é".repeat(600), &"t".repeat(50_000_000));
    assert_eq!(line["id"].as_str().map(|id| id.chars().count()), Some(513));
    assert!(line["id"].as_str().is_some_and(|id| id.ends_with("é…")));
    assert_eq!(line["text"].as_str().map(|text| text.chars().count()), Some(4097));
    let lines = captured(|| tracing::info!(value = ?"v".repeat(2000), "debug values too"));
    assert_eq!(json_lines(&lines)[0]["value"].as_str().map(|value| value.chars().count()), Some(1025));
}

#[test]
fn a_person_sees_time_level_message_and_fields() {
    let say = || Telemetry::default().emit(&QueueTrouble { operation: "commit", error: "OOM command not allowed" });
    let line = logged(Style::Pretty { colour: false }, say);
    let (time, rest) = line.split_at(14);
    assert!(time.ends_with("Z "), "{line}");
    assert_eq!(
        rest,
        "ERROR queue trouble alarm=true name=queue-trouble operation=commit error=\"OOM command not allowed\"\n"
            .trim_start()
    );
    assert!(logged(Style::Pretty { colour: true }, say).contains("\x1b[31mERROR\x1b[0m"));
}

#[test]
fn a_level_that_is_none_is_refused_with_the_key_and_filters_are_understood() {
    for good in ["info", "WARN", "off", "warn,dossier::plugin=debug", "dossier::alert=info"] {
        parse_filter("level in [log]", good).expect(good);
    }
    for bad in ["", "inof", "info,dosier", "dossier=loud"] {
        let error = parse_filter("level in [log]", bad).expect_err(bad).to_string();
        assert!(error.starts_with("level in [log]: ") && error.contains("info, debug"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_log_makes_the_reading_wait_and_loses_nothing() {
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    // The pipe is full from the start, so that nothing depends on how quick the writer is.
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("set");
    let mut filled = 0;
    while let Ok(written) = writer.write(&[b'x'; 4096]) {
        filled += written;
    }
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).expect("set");
    let guard = LogGuard::start(writer, 64 << 10).expect("a thread");
    let telemetry = Telemetry::new(guard.sink());
    let line = |at: usize| format!("{at:099}\n");

    // Nobody reads: half of the buffer fills.
    let mut sent = 0;
    while futures_util::poll!(std::pin::pin!(telemetry.log_ready())).is_ready() {
        guard.sink().push(line(sent).as_bytes());
        sent += 1;
        assert!(sent < 10_000, "the log never said that it is full");
    }
    // What is in flight still finds room, without waiting.
    for at in sent..sent + 200 {
        guard.sink().push(line(at).as_bytes());
    }
    sent += 200;

    // Tasks that write far more than there is room for block, and yet timers run on.
    let sink = guard.sink();
    let blocked = tokio::spawn(async move {
        for at in sent..sent + 3000 {
            sink.push(line(at).as_bytes());
        }
    });
    tokio::task::yield_now().await;
    assert!(timeout(Duration::from_millis(50), telemetry.log_ready()).await.is_err(), "nobody has read yet");
    assert!(!blocked.is_finished());

    // Somebody reads: everything comes, in order.
    let total = sent + 3000;
    let read = std::thread::spawn(move || {
        reader.read_exact(&mut vec![0; filled]).expect("what filled the pipe");
        BufReader::new(reader).lines().map(Result::unwrap).collect::<Vec<_>>()
    });
    timeout(LONG, blocked).await.expect("goes on").expect("ends");
    timeout(LONG, telemetry.log_ready()).await.expect("goes on").expect("works");
    guard.close().expect("written");
    let lines = read.join().expect("read");
    assert_eq!(lines.len(), total);
    assert!(lines.iter().enumerate().all(|(at, read)| *read == line(at).trim_end()));
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_told_to_whoever_waits() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let guard = LogGuard::start(writer, CAPACITY).expect("a thread");
    let telemetry = Telemetry::new(guard.sink());
    let mut failed = std::pin::pin!(telemetry.log_failed());
    assert!(matches!(futures_util::poll!(&mut failed), Poll::Pending));
    drop(reader);
    guard.sink().push(b"nobody reads this\n");
    let error = timeout(LONG, failed).await.expect("is told").to_string();
    assert!(error.contains("roken pipe"), "{error}");
    assert!(matches!(telemetry.log_ready().await, Err(LogError::Broken(_))));
    // Lines are dropped now, and nobody blocks.
    guard.sink().push(&[b'x'; CAPACITY]);
    guard.sink().push(&[b'x'; CAPACITY]);
    assert!(matches!(guard.close(), Err(LogError::Broken(_))));
}

#[tokio::test]
async fn a_full_disk_is_a_log_that_cannot_be_written() {
    let full = File::options().write(true).open("/dev/full").expect("Linux");
    let guard = LogGuard::start(full, CAPACITY).expect("a thread");
    let telemetry = Telemetry::new(guard.sink());
    guard.sink().push(b"no room\n");
    let error = timeout(LONG, telemetry.log_failed()).await.expect("is told");
    assert!(error.to_string().contains("No space left"), "{error}");
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_the_host_from_ending_and_says_what_is_missing() {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    let guard = LogGuard::start(writer, 200 << 10).expect("a thread");
    guard.sink().push(&[b'x'; 150 << 10]);
    let error = guard.end(Duration::from_millis(50)).expect_err("nobody reads");
    assert!(matches!(error, LogError::Blocked(bytes) if bytes > 64 << 10), "{error}");
    // Whoever still writes is not held up.
    guard.sink().push(&[b'x'; 150 << 10]);
}

#[test]
fn an_output_that_somebody_made_non_blocking_loses_nothing() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("set");
    let guard = LogGuard::start(writer, CAPACITY).expect("a thread");
    let text = vec![b'x'; 300 << 10];
    guard.sink().push(&text);
    let read = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map(|_| all)
    });
    guard.close().expect("written");
    assert_eq!(read.join().expect("ran").expect("read"), text);
}

#[test]
fn dropping_the_guard_writes_what_waits() {
    let mut file = tempfile::tempfile().expect("a file");
    let guard = LogGuard::start(file.try_clone().expect("a descriptor"), CAPACITY).expect("a thread");
    guard.sink().push(b"the last line\n");
    drop(guard);
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("read");
    assert_eq!(text, "the last line\n");
    file.flush().expect("flushed");
}
