use super::*;

const SILENCE: Duration = Duration::from_secs(300);
const ROUND: Duration = Duration::from_secs(10);

/// A host's ears, and a clock that a test turns.
struct Host {
    sources: Sources,
    watch: Watch,
    now: Instant,
}

impl Host {
    fn new(text: &str) -> Self {
        let config = crate::config::Config::parse(std::path::Path::new("dossier.toml"), text).unwrap().alarms;
        let now = Instant::now();
        Self { sources: Sources::new(&config), watch: Watch::new(&config, now).unwrap(), now }
    }

    /// A round in which these sources were heard.
    fn round(&mut self, heard: &[&str], listening: bool, all: &[Heard]) -> (Vec<String>, Round) {
        heard.iter().for_each(|source| self.sources.heard_from(source));
        self.now += ROUND;
        let (told, crowded) = self.watch.listen(&self.sources, self.now, listening);
        (told, self.watch.round(&self.sources, self.now, all, crowded))
    }

    /// Who is silent after so many rounds in which these sources were heard.
    fn rounds(&mut self, count: u32, heard: &[&str]) -> Vec<String> {
        let mut last = Round::default();
        (0..count).for_each(|_| last = self.round(heard, true, &[]).1);
        names(&last)
    }
}

fn names(round: &Round) -> Vec<String> {
    round.silent.iter().map(|(name, _)| name.to_string()).collect()
}

fn heard(source: &str, ago: Duration) -> Heard {
    Heard { source: source.to_owned(), ago }
}

#[test]
fn a_source_that_was_there_and_is_silent_for_longer_than_the_threshold_is_named_until_it_is_heard_again() {
    let mut host = Host::new("");
    assert_eq!(host.rounds(10, &["fw-1", "fw-2"]), [""; 0]);
    assert_eq!(host.rounds(30, &["fw-2"]), [""; 0], "300 s are not longer than the threshold");
    assert_eq!(host.rounds(1, &["fw-2"]), ["fw-1"]);
    assert_eq!(host.rounds(1, &["fw-1", "fw-2"]), [""; 0]);
}

#[test]
fn a_name_that_was_heard_once_or_in_one_burst_is_not_watched() {
    let mut host = Host::new("");
    for _ in 0..1000 {
        host.sources.heard_from("burst");
    }
    assert_eq!(host.rounds(100, &["fw"]), [""; 0]);
    assert_eq!(host.round(&[], true, &[]).1.watched, 1);
}

#[test]
fn time_in_which_the_host_does_not_listen_speaks_against_nobody() {
    let mut host = Host::new("");
    host.rounds(10, &["fw"]);
    for _ in 0..100 {
        assert_eq!(names(&host.round(&[], false, &[]).1), [""; 0]);
    }
    assert_eq!(host.rounds(30, &[]), [""; 0]);
    assert_eq!(host.rounds(1, &[]), ["fw"]);
}

#[test]
fn a_source_that_another_host_hears_is_not_silent() {
    let mut host = Host::new("");
    host.rounds(10, &["fw"]);
    for _ in 0..100 {
        let (told, round) = host.round(&[], true, &[heard("fw", ROUND / 2)]);
        assert_eq!((told.len(), names(&round)), (0, Vec::new()));
    }
    // The other host hears it no more, and neither does this one.
    let mut ago = ROUND / 2;
    let mut silent_after = None;
    for round in 1..60 {
        ago += ROUND;
        if names(&host.round(&[], true, &[heard("fw", ago)]).1) == ["fw"] {
            silent_after = silent_after.or(Some(round));
        }
    }
    assert!((29..=32).contains(&silent_after.unwrap()), "{silent_after:?} rounds");
}

#[test]
fn what_a_host_tells_others_and_is_told_again_is_no_sign_of_life() {
    let mut host = Host::new("");
    host.rounds(10, &["fw"]);
    let mut silent = Vec::new();
    for round in 1..=31 {
        // The server's clock goes a little wrong.
        silent = names(&host.round(&[], true, &[heard("fw", ROUND * round - ROUND / 10)]).1);
    }
    assert_eq!(silent, ["fw"]);
}

#[test]
fn a_source_that_was_silent_before_a_restart_is_named_again_when_it_was_listened_to_for_long_enough() {
    let mut host = Host::new("");
    let long_ago = Duration::from_secs(11 * 86_400);
    let mut count = 0;
    while names(&host.round(&[], true, &[heard("fw", long_ago + ROUND * count)]).1).is_empty() {
        count += 1;
        assert!(count < 100, "never");
    }
    assert_eq!(count, 30);
}

#[test]
fn a_source_that_often_pauses_is_given_twice_its_usual_pause() {
    let mut host = Host::new("");
    for _ in 0..6 {
        assert_eq!(host.rounds(1, &["hourly"]), [""; 0]);
        host.rounds(359, &[]);
    }
    assert_eq!(host.rounds(360, &[]), [""; 0], "two hours");
    assert_eq!(host.rounds(10, &[]), ["hourly"]);
}

#[test]
fn an_outage_is_no_habit_and_neither_are_two() {
    let mut host = Host::new("");
    host.rounds(10, &["fw"]);
    for outage in 0..HABIT {
        assert_eq!(host.rounds(30, &[]), [""; 0]);
        assert_eq!(host.rounds(300, &[]), ["fw"], "outage {outage}");
        assert_eq!(host.rounds(1, &["fw"]), [""; 0]);
    }
    assert_eq!(host.rounds(300, &[]), [""; 0], "it does that all the time");
}

#[test]
fn names_that_somebody_invents_push_out_nothing_that_is_watched_and_take_bounded_memory() {
    let mut host = Host::new("");
    host.rounds(10, &["fw"]);
    let mut crowded = false;
    for round in 0..100 {
        let invented: Vec<_> = (0..5000).map(|at| format!("{round}-{at}")).collect();
        let invented: Vec<_> = invented.iter().map(String::as_str).collect();
        let (_, last) = host.round(&invented, true, &[]);
        crowded |= last.crowded;
        assert!(host.watch.known.len() <= SUBJECTS + CANDIDATES && last.watched == 1);
    }
    assert!(crowded, "it is told of");
    assert!(host.sources.rounds.read().unwrap().len() <= SUBJECTS + CANDIDATES);
    assert_eq!(names(&host.round(&[], true, &[]).1), ["fw"]);
    // A true one that comes now is found all the same.
    host.rounds(5, &["new"]);
    assert_eq!(host.round(&["new"], true, &[]).1.watched, 2);
}

#[test]
fn of_far_more_true_sources_than_there_is_room_for_many_are_watched_and_it_is_told_of() {
    let mut host = Host::new("");
    let all: Vec<_> = (0..30_000).map(|at| format!("host-{at}")).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let (mut crowded, mut watched) = (false, 0);
    for _ in 0..12 {
        // Each sends once in twenty rounds.
        for some in all.chunks(1500) {
            let (_, last) = host.round(some, true, &[]);
            (crowded, watched) = (crowded || last.crowded, last.watched);
            assert!(host.watch.known.len() <= SUBJECTS + CANDIDATES);
        }
    }
    assert!(crowded);
    assert_eq!(watched, SUBJECTS);
}

#[test]
fn more_true_sources_than_can_be_watched_are_told_of_and_the_first_ones_stay() {
    let mut host = Host::new("");
    let first: Vec<_> = (0..SUBJECTS).map(|at| format!("first-{at}")).collect();
    let first: Vec<_> = first.iter().map(String::as_str).collect();
    // There are too many of them to be watched all at once.
    host.rounds(12, &first);
    let (_, last) = host.round(&["late", "later"], true, &[]);
    assert_eq!((last.watched, last.crowded), (SUBJECTS, false));
    host.rounds(3, &["late", "later"]);
    let (_, last) = host.round(&["late"], true, &[]);
    assert_eq!((last.watched, last.crowded), (SUBJECTS, true));
    assert_eq!(host.rounds(40, &[]).len(), SUBJECTS);
}

#[test]
fn a_source_is_forgotten_in_time_and_one_that_is_ignored_is_never_known() {
    let mut host = Host::new("[alarms]\nforget = \"10m\"\nignore = [\"retired\"]");
    host.rounds(10, &["fw", "retired"]);
    assert_eq!(host.rounds(50, &[]), ["fw"]);
    assert_eq!(host.rounds(10, &[]), [""; 0]);
    assert_eq!(host.round(&[], true, &[heard("retired", ROUND)]).1.watched, 0);
    assert!(host.sources.rounds.read().unwrap().is_empty());
}

#[test]
fn the_first_pointer_that_is_a_text_names_the_source() {
    let sources = Host::new("[alarms]\nsource = [\"/source\", \"/host\"]").sources;
    for alert in [
        r#"{"source":{"ip":"192.0.2.1"},"host":"web-1"}"#,
        r#"{"source":"fw","host":"web-2"}"#,
        r#"{"source":"","x":1}"#,
        "{}",
    ] {
        sources.heard(&Document::read(alert, 64).unwrap());
    }
    let mut known: Vec<_> = sources.rounds.read().unwrap().keys().map(ToString::to_string).collect();
    known.sort();
    assert_eq!(known, ["fw", "web-1"]);
    let off = Host::new("").watch.silence;
    assert_eq!(off, SILENCE);
    let config = crate::config::Config::parse(std::path::Path::new("d"), "[alarms]\nsilence = \"off\"").unwrap().alarms;
    assert!(Watch::new(&config, Instant::now()).is_none() && Sources::new(&config).pointers.is_empty());
}

#[test]
fn a_source_that_must_not_be_shown_is_watched_under_a_name_that_tells_it_from_others_only() {
    let sources = Host::new("[alarms]\nsource = [\"/source\"]\nignore = [\"retired\"]").sources;
    let redactor = crate::telemetry::redact::Redactor::new(&["/source".to_owned()]);
    for alert in [
        r#"{"source":"sensor-1"}"#,
        r#"{"source":"sensor-2"}"#,
        r#"{"source":"sensor-1","n":2}"#,
        r#"{"source":"fw"}"#,
        r#"{"source":"retired"}"#,
    ] {
        let document = Document::read(alert, 64).unwrap();
        redactor.find(&document).within(|| sources.heard(&document));
    }
    let mut known: Vec<_> = sources.rounds.read().unwrap().keys().map(ToString::to_string).collect();
    known.sort();
    let name = |source: &str| format!("[redacted]-{}", &crate::digest::sha256_hex(source.as_bytes())[..8]);
    let mut expected = ["sensor-1", "sensor-2", "fw"].map(name);
    expected.sort();
    assert_eq!(known, expected);
}
