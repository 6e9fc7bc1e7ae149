//! A text as `dossier.toml`: read or refused, each finding at a line that there is, and what is accepted is accepted again.

use std::path::Path;

use dossier::config::Config;

/// Any bytes; what is no UTF-8 cannot get this far in a host.
///
/// # Panics
/// A promise is broken.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = Path::new("dossier.toml");
    let (config, findings) = Config::examine_text(file, text);
    // What is missing at the end is missing on the line after the last line break.
    let lines = 1 + text.matches('\n').count();
    for finding in &findings {
        assert!(!finding.message.is_empty());
        assert!(finding.line.is_none_or(|line| (1..=lines).contains(&line)), "{finding} of {lines} lines");
    }
    assert!(config.is_some() || !findings.is_empty(), "neither read nor refused");
    let again = Config::parse(file, text);
    assert_eq!(again.is_ok(), config.is_some() && findings.is_empty());
    if let Ok(config) = again {
        assert!(config.host.in_flight > 0 && config.queue.batch > 0 && config.queue.max_alert_size > 0);
    }
}
