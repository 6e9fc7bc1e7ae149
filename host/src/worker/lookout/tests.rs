use super::*;
use crate::config::Config;

struct Case {
    config: AlarmsConfig,
    telemetry: Telemetry,
}

fn case(text: &str) -> Case {
    let config = Config::parse(std::path::Path::new("dossier.toml"), text).unwrap().alarms;
    Case { config, telemetry: Telemetry::default() }
}

impl Case {
    fn held(&self) -> Vec<String> {
        self.telemetry.alarms().list().into_iter().map(|alarm| format!("{}: {}", alarm.alarm, alarm.detail)).collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn sample(waiting: u64, own: usize, finished: u64) -> Sample {
    Sample { depth: Depth { waiting, ..Depth::default() }, finished, own }
}

#[test]
fn a_queue_in_which_alerts_wait_and_none_is_finished_is_stalled_until_one_is() {
    let case = case("[alarms]\nstalled = \"10s\"");
    let begin = Instant::now();
    let mut lookout = Lookout::new(&case.config, 10, begin);
    for (at, seen) in [(0, sample(3, 1, 0)), (5, sample(3, 1, 1)), (15, sample(3, 1, 1))] {
        lookout.look(begin + at * SECOND, &seen, &case.telemetry);
        assert_eq!(case.held(), [""; 0], "after {at} s");
    }
    lookout.look(begin + 16 * SECOND, &sample(3, 1, 1), &case.telemetry);
    assert_eq!(case.held(), ["queue-stalled: 3 wait, 1 are in flight here, and none was finished for 11.0 s"]);
    lookout.look(begin + 17 * SECOND, &sample(2, 1, 2), &case.telemetry);
    assert_eq!(case.held(), [""; 0]);
}

#[test]
fn an_empty_queue_and_what_others_have_in_flight_are_not_stalled() {
    let case = case("");
    let begin = Instant::now();
    let mut lookout = Lookout::new(&case.config, 10, begin);
    let mut seen = sample(0, 0, 0);
    seen.depth.in_flight = 7;
    for at in 0..1000 {
        lookout.look(begin + at * SECOND, &seen, &case.telemetry);
    }
    assert_eq!(case.held(), [""; 0]);
}

#[test]
fn an_alert_that_is_too_old_is_late_even_while_others_are_finished() {
    let case = case("[alarms]\noldest = \"1h\"");
    let begin = Instant::now();
    let mut lookout = Lookout::new(&case.config, 10, begin);
    let mut seen = sample(1, 1, 1);
    for (hours, held) in [(1, ""), (2, "queue-late: the oldest has been in the queue for 2 h 0 min"), (0, "")] {
        seen.depth.oldest = Some(hours * 3600 * SECOND);
        seen.finished += 1;
        lookout.look(begin, &seen, &case.telemetry);
        assert_eq!(case.held().concat(), held);
    }
}

#[test]
fn dead_letters_that_come_too_fast_are_an_alarm_and_those_that_are_replayed_make_no_room_for_others() {
    let case = case("[alarms]\ndead_letters = \"10/min\"");
    let begin = Instant::now();
    let mut lookout = Lookout::new(&case.config, u64::MAX, begin);
    let mut look = |at: u32, dead: u64| {
        let mut seen = sample(0, 0, 0);
        seen.depth.dead = dead;
        lookout.look(begin + at * SECOND, &seen, &case.telemetry);
        case.held().concat()
    };
    assert_eq!(look(0, 500), "", "what was there before is no growth");
    assert_eq!(look(2, 510), "", "ten are allowed");
    assert_eq!(look(4, 0), "", "replayed");
    assert_eq!(look(6, 1), "dead-letters-grow: 11 in the last 1 min 0 s; see dossier dlq list");
    assert_eq!(look(61, 1).as_str(), "dead-letters-grow: 11 in the last 1 min 0 s; see dossier dlq list");
    assert_eq!(look(62, 1), "");
}

#[test]
fn a_store_is_nearly_full_from_its_share_on() {
    let case = case("[alarms]\nstore = 0.5");
    let lookout = Lookout::new(&case.config, 10, Instant::now());
    let room = |used| Ok(Some(Room { used, total: 2048, place: "here".into() }));
    lookout.room(&room(1023), &case.telemetry);
    assert_eq!(case.held(), [""; 0]);
    lookout.room(&room(1024), &case.telemetry);
    assert_eq!(case.held(), ["store-full: here: 1.0 KiB of 2.0 KiB are used, 50 %"]);
    lookout.room(&Ok(None), &case.telemetry);
    assert_eq!(case.held(), [""; 0]);
}

#[test]
fn sources_are_named_while_they_are_silent_and_a_crowd_is_told_of_for_a_while() {
    let case = case("");
    let begin = Instant::now();
    let mut lookout = Lookout::new(&case.config, 10, begin);
    let silent = |names: &[&str]| names.iter().map(|name| (Box::from(*name), 400 * SECOND)).collect();
    lookout.sources(begin, &Round { silent: silent(&["a", "b"]), watched: 3, crowded: true }, &case.telemetry);
    assert_eq!(case.telemetry.alarms().subjects(Kind::SourceSilent), ["a", "b"]);
    lookout.sources(begin + SECOND, &Round { silent: silent(&["b"]), watched: 3, crowded: false }, &case.telemetry);
    assert_eq!(case.held(), ["source-silent: nothing for 6 min 40 s", "sources-many: 3 are watched, others are not"]);
    lookout.sources(begin + CROWD, &Round::default(), &case.telemetry);
    assert_eq!(case.held(), [""; 0]);
}
