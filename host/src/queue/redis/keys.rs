//! The names of keys, all derived from the stream's: a stream named `{alerts}` keeps them in one slot of a Cluster.

/// Every key of one queue.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// The stream of alerts.
    pub stream: String,
    /// The stream of stored records.
    pub store: String,
    /// The stream of dead letters.
    pub dead: String,
    /// Hash: how often an entry crashed a host while it ran alone.
    pub accused: String,
    /// Hash: how many alerts were let go of as duplicates, which no stream counts.
    pub ledger: String,
    /// Sorted set: when which source was heard last.
    pub sources: String,
    /// Hash: of each record that is to be replaced, the entry that is on its way to do so.
    pub again: String,
    /// Before an alert's id: where it is stored.
    pub index: String,
    /// Before an entry's id: who put it into the dead letters a moment ago.
    pub notes: String,
    /// Before a request's key: what an HTTP interface answered.
    pub answers: String,
    /// Before a consumer's name: there while its host lives.
    pub leases: String,
}

impl Keys {
    pub(super) fn new(stream: &str) -> Self {
        Self {
            stream: stream.to_owned(),
            store: format!("{stream}:enriched"),
            dead: format!("{stream}:dlq"),
            accused: format!("{stream}:accused"),
            ledger: format!("{stream}:ledger"),
            sources: format!("{stream}:sources"),
            again: format!("{stream}:again"),
            index: format!("{stream}:id:"),
            notes: format!("{stream}:dead:"),
            answers: format!("{stream}:http:"),
            leases: format!("{stream}:lease:"),
        }
    }

    pub(super) fn lease(&self, consumer: &str) -> String {
        format!("{}{consumer}", self.leases)
    }
}

/// The milliseconds of an entry's id; zero when it is none.
pub(super) fn millis(entry: &str) -> u64 {
    entry.split('-').next().and_then(|millis| millis.parse().ok()).unwrap_or(0)
}

/// Where an entry is in its stream: what its id is ordered by.
pub(super) fn place(entry: &str) -> (u64, u64) {
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut numbers = entry.splitn(2, '-');
    (number(numbers.next()), number(numbers.next()))
}

/// Whether a text is an entry's id.
pub(super) fn is_entry(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.parse::<u64>().is_ok();
    text.split_once('-').is_some_and(|(millis, sequence)| number(millis) && number(sequence))
}

/// The age of an entry. Ids may be chosen by the producer: one from the future, or from before there were streams, is no
/// time, and its age is zero.
pub(super) fn age(entry: &str, now: u64) -> std::time::Duration {
    const FIRST_STREAMS: u64 = 1_500_000_000_000; // 2017
    let millis = millis(entry);
    let age = if millis < FIRST_STREAMS { 0 } else { now.saturating_sub(millis) };
    std::time::Duration::from_millis(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_clamped_where_the_id_is_no_time() {
        let now = 1_800_000_000_000;
        assert_eq!(age("1799999999000-3", now).as_millis(), 1000);
        for id in ["18446744073709551615-1", "1-1", "0-1", "nonsense"] {
            assert!(age(id, now).is_zero(), "{id}");
        }
    }

    #[test]
    fn only_whole_ids_name_an_entry() {
        assert!(is_entry("17-0"));
        for text in ["", "17", "-", "17-", "RULE-1", "17-0-1", "18446744073709551616-0"] {
            assert!(!is_entry(text), "{text}");
        }
    }
}
