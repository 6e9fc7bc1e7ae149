//! What people read: text made safe for a terminal, durations, counts, progress. Nothing here knows what it is about.

use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub use crate::checkup::rough;
use crate::config::QueueKind;

/// The standard output, buffered. Whoever reads it may leave early (`| head`): what is written then goes nowhere, and
/// [`Out::is_closed`] says so.
pub struct Out<W: Write> {
    inner: io::BufWriter<W>,
    closed: bool,
}

impl<W: Write> Out<W> {
    /// Writes to this.
    pub fn new(inner: W) -> Self {
        Self { inner: io::BufWriter::new(inner), closed: false }
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes what is still in the buffer.
    ///
    /// # Errors
    /// What the writer says, but a closed pipe.
    pub fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }

    fn unless_closed<T>(&mut self, result: io::Result<T>, otherwise: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(otherwise)
            }
            result => result,
        }
    }
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        let written = self.inner.write(bytes);
        self.unless_closed(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let flushed = self.inner.flush();
        self.unless_closed(flushed, ())
    }
}

/// Tells people that something went wrong, each line as an `error:` of its own. That nobody may be there to read it is no
/// reason to fail.
pub fn complain(message: &str) {
    let mut stderr = io::stderr().lock();
    for line in message.lines() {
        let _ = writeln!(stderr, "error: {}", printable(line));
    }
}

/// Tells people something beside the output.
pub fn remark(message: &str) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// A text without anything that a terminal would obey or hide: control characters, escape sequences, line breaks, characters
/// that turn the direction of writing. They show as `\n` or `\u{1b}`. Ids and details come from attackers.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    // The standard library knows what is printable, and escapes quotes and backslashes as well: those stay as they are.
    while let Some(at) = rest.find(['"', '\'', '\\']) {
        safe.extend(rest[..at].escape_debug());
        safe.push_str(&rest[at..=at]);
        rest = &rest[at + 1..];
    }
    safe.extend(rest.escape_debug());
    safe
}

/// Anything as JSON on several lines that nothing in it can break out of: what [`printable`] would escape is escaped as
/// JSON does it, so that it stays JSON.
///
/// # Errors
/// None in practice: what cannot be JSON, such as a map whose keys are no texts.
pub fn pretty(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let value = serde_json::to_value(value)?;
    Ok(escaped(&serde_json::to_string_pretty(&value)?))
}

/// JSON text on one line, made safe in the same way; line breaks between its tokens become spaces.
pub fn one_line(json: &str) -> String {
    escaped(&json.replace(['\n', '\r', '\t'], " "))
}

fn escaped(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for char in json.chars() {
        let plain = matches!(char, '\n' | '"' | '\'' | '\\') || char.escape_debug().len() == 1;
        if plain {
            safe.push(char);
        } else {
            safe.extend(char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    safe
}

/// A number with its thousands apart: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun: `1 alert`, `12 alerts`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A duration in its two largest units: `0.4 s`, `13 s`, `2 m 13 s`, `3 h 5 m`, `2 d 4 h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// How long ago a moment was; zero for one in the future.
pub fn since(moment: jiff::Timestamp) -> Duration {
    Duration::try_from(jiff::Timestamp::now().duration_since(moment)).unwrap_or_default()
}

/// The queue as people name it, without a password.
pub fn place(kind: &QueueKind) -> String {
    match kind {
        QueueKind::Directory { path } => format!("directory queue \"{}\"", printable(&path.display().to_string())),
        QueueKind::Redis(redis) => {
            format!("redis stream \"{}\" at {}", printable(&redis.stream), printable(&without_secrets(&redis.url)))
        }
    }
}

/// A Redis URL without what might be secret: user, password and query.
pub fn without_secrets(url: &str) -> String {
    let Ok(mut url) = url::Url::parse(url) else {
        return several_hosts(url).unwrap_or_else(|| "a URL that cannot be read".to_owned());
    };
    // A URL that cannot have a user has none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    // Without a host nobody can tell what is a password: `redis:user:password@…` is a scheme and a path.
    let is_place = if url.scheme().ends_with("unix") { url.path().starts_with('/') } else { url.has_host() };
    if is_place && !url.as_str().contains('@') { url.into() } else { "a URL that cannot be read".to_owned() }
}

/// The same of a URL that names several hosts. None where it is not plain which part is what.
fn several_hosts(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://").filter(|(scheme, _)| scheme.contains('+'))?;
    let rest = rest.split(['?', '#']).next()?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let hosts = authority.rsplit('@').next()?;
    (!path.contains('@') && hosts.contains(',')).then(|| format!("{scheme}://{hosts}{path}"))
}

/// How far long work is, on the standard error: only on a terminal, and only once it takes longer than a second.
pub struct Progress {
    started: Instant,
    total: Option<u64>,
    bytes: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Work on `total` things, or an unknown number of them.
    pub fn of(total: Option<u64>) -> Self {
        Self { started: Instant::now(), total, bytes: false, bar: None }
    }

    /// Work on `total` bytes, or an unknown number of them.
    pub fn of_bytes(total: Option<u64>) -> Self {
        Self { started: Instant::now(), total, bytes: true, bar: None }
    }

    /// Notes how far it is.
    pub fn at(&mut self, position: u64, message: impl FnOnce() -> String) {
        if self.bar.is_none() && io::stderr().is_terminal() && self.started.elapsed() > Duration::from_secs(1) {
            self.bar = Some(self.start());
        }
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(message());
        }
    }

    fn start(&self) -> ProgressBar {
        let template = match (self.total, self.bytes) {
            (Some(_), true) => "{wide_bar} {bytes}/{total_bytes}, {msg}, {eta} left",
            (None, true) => "{spinner} {bytes}, {msg}, {elapsed}",
            (Some(_), false) => "{wide_bar} {pos}/{len}, {msg}, {eta} left",
            (None, false) => "{spinner} {pos}, {msg}, {elapsed}",
        };
        let bar = ProgressBar::with_draw_target(self.total, ProgressDrawTarget::stderr());
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }

    /// How long it took until now.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        assert_eq!(printable("plain \"quoted\" c:\\dir it's é 漢"), "plain \"quoted\" c:\\dir it's é 漢");
        assert_eq!(printable("\x1b[2J\x07\r\n\t\u{9b}31m"), "\\u{1b}[2J\\u{7}\\r\\n\\t\\u{9b}31m");
        assert_eq!(printable("\u{202e}gpj.exe\u{2066}\u{200b}"), "\\u{202e}gpj.exe\\u{2066}\\u{200b}");
        let all: String = ('\0'..='\u{10ffff}').filter(|char| char.is_control()).collect();
        assert!(!printable(&all).chars().any(char::is_control));
    }

    #[test]
    fn json_for_people_stays_json_and_drives_no_terminal() {
        let value = serde_json::json!({"a": "\u{9b}31m\u{202e}\u{1f980}\u{e0001}\n\"\\", "b": [1, {}]});
        let text = pretty(&value).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        assert!(text.lines().all(|line| printable(line) == line), "{text}");
        assert!(text.contains('\u{1f980}'), "{text}");
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        let shown = without_secrets("redis://user:s3cret@example.org:6380/2?password=s3cret");
        assert_eq!(shown, "redis://example.org:6380/2");
        assert_eq!(without_secrets("redis://:s3cret@127.0.0.1:6379/0"), "redis://127.0.0.1:6379/0");
        assert_eq!(without_secrets("redis+unix:///run/redis.sock?pass=s3cret"), "redis+unix:///run/redis.sock");
        let sentinels = "redis+sentinel://app:s3cret@a:1,b:2/main/0?sentinel_password=s3cret";
        assert_eq!(without_secrets(sentinels), "redis+sentinel://a:1,b:2/main/0");
        assert_eq!(without_secrets("unix:///run/redis.sock?user=u&pass=s3cret"), "unix:///run/redis.sock");
        for odd in [
            "redis+sentinel://:s3cret/x@a:1,b:2/main",
            "redis+cluster://s3cret:1:2",
            "redis://:s3cret@[x",
            "default:s3cret@127.0.0.1:18191",
            "redis:default:s3cret@127.0.0.1:18191",
            "redis:/default:s3cret@127.0.0.1:18191",
            "redis:///default:s3cret@127.0.0.1:18191",
            "redis://h/s3cret@x",
            "unix:s3cret",
        ] {
            assert!(!without_secrets(odd).contains("s3cret"), "{odd}");
        }
        assert!(!without_secrets("s3cret").contains("s3cret"));
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        let shown =
            [0.0, 0.42, 9.5, 59.9, 133.0, 3_600.0, 11_100.0, 187_200.0].map(Duration::from_secs_f64).map(duration);
        assert_eq!(shown, ["0.0 s", "0.4 s", "9.5 s", "59 s", "2 m 13 s", "1 h 0 m", "3 h 5 m", "2 d 4 h"]);
        assert_eq!(rough(Duration::from_secs(7_300)), "2 h");
        assert_eq!(since(jiff::Timestamp::MAX), Duration::ZERO);
    }

    #[test]
    fn a_reader_that_leaves_is_noticed_and_is_no_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = Out::new(Gone);
        assert!(writeln!(out, "line").and_then(|()| out.flush()).is_ok());
        assert!(out.is_closed());
        assert!(out.write_all(&[b'x'; 100_000]).is_ok());
    }
}
