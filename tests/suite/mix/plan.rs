//! What a mix of faults is made of: a pure function of its seed. Several things go wrong at the same time, so each lane has
//! a plan of its own.

use std::time::Duration;

use fastrand::Rng;

/// What somebody does to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerFault {
    /// kill -9, and so long until it is there again.
    Kill(Duration),
    /// It hangs for so long.
    Freeze(Duration),
    /// It forgets the scripts.
    FlushScripts,
    /// The consumer group is gone.
    DestroyGroup,
    /// All clients are thrown out.
    KillConnections,
    /// It takes no more memory for so long.
    OutOfMemory(Duration),
    /// It is a replica for so long, and refuses writes.
    ReadOnly(Duration),
}

/// What somebody does to the hosts. There are two at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostFault {
    /// kill -9.
    Kill(usize),
    /// SIGTERM.
    Stop(usize),
    /// It hangs for so long, longer than its lease at times.
    Freeze(usize, Duration),
    /// It is there, if it was not.
    Start(usize),
}

/// What an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// A version of the plugin that is as good as any.
    Good(u32),
    /// A version that traps on half of the alerts.
    Bad(u32),
    /// A file that is not whole.
    Half(u32),
    /// Dead letters are put back, for so long at the most: then the command is killed.
    Replay(Duration),
}

/// How long to wait before something is done, and what.
pub type Step<T> = (Duration, T);

fn lane(seed: u64, number: u64) -> Rng {
    // Apart from each other, so that one that is left out does not change the others.
    Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

/// What happens to the server, for ever.
pub fn server(seed: u64) -> impl Iterator<Item = Step<ServerFault>> {
    let mut rng = lane(seed, 1);
    std::iter::repeat_with(move || {
        let pause = millis(&mut rng, 200..1200);
        let fault = match rng.u32(0..12) {
            0 | 1 => ServerFault::Kill(millis(&mut rng, 0..800)),
            2 | 3 => ServerFault::Freeze(millis(&mut rng, 100..2500)),
            4 | 5 => ServerFault::FlushScripts,
            6 => ServerFault::DestroyGroup,
            7 => ServerFault::OutOfMemory(millis(&mut rng, 100..2500)),
            8 => ServerFault::ReadOnly(millis(&mut rng, 100..2500)),
            _ => ServerFault::KillConnections,
        };
        (pause, fault)
    })
}

/// What happens to the hosts, for ever.
pub fn hosts(seed: u64) -> impl Iterator<Item = Step<HostFault>> {
    let mut rng = lane(seed, 2);
    std::iter::repeat_with(move || {
        let pause = millis(&mut rng, 100..1000);
        let host = usize::from(rng.u32(0..3) == 0);
        let fault = match rng.u32(0..8) {
            0 | 1 => HostFault::Kill(host),
            2 => HostFault::Stop(host),
            3 => HostFault::Freeze(host, millis(&mut rng, 100..2500)),
            _ => HostFault::Start(host),
        };
        (pause, fault)
    })
}

/// What the operator does, for ever.
pub fn operator(seed: u64) -> impl Iterator<Item = Step<Deed>> {
    let mut rng = lane(seed, 3);
    let mut version = 0;
    std::iter::repeat_with(move || {
        let pause = millis(&mut rng, 200..1500);
        version += 1;
        let deed = match rng.u32(0..8) {
            0..=2 => Deed::Good(version),
            3 => Deed::Bad(version),
            4 => Deed::Half(version),
            _ => Deed::Replay(millis(&mut rng, 20..2000)),
        };
        (pause, deed)
    })
}

/// A line that is sent, by its number: an alert, or what should have been one.
pub fn alert(seed: u64, number: u64) -> Vec<u8> {
    let mut rng = lane(seed, 1_000 + number);
    let id = format!("mix-{number:07}");
    let amount = number % 10;
    let mischief = |what: &str| format!("{{\"id\":\"{id}\",\"mischief\":\"{what}\"}}").into_bytes();
    match rng.u32(0..1000) {
        0..60 if number > 0 => alert(seed, rng.u64(0..number)),
        60..90 if number > 0 => {
            let other = rng.u64(0..number);
            format!("{{\"id\":\"mix-{other:07}\",\"amount\":{amount},\"beside\":{number}}}").into_bytes()
        }
        90..110 => format!("{{\"amount\":{amount},\"nameless\":{number}}}").into_bytes(),
        110..118 => format!("{{\"id\":\"{id}\"").into_bytes(),
        118..122 => [format!("{{\"id\":\"{id}\",\"x\":\"").as_bytes(), b"\xff\xfe\0\"}"].concat(),
        122..125 => format!("[\"{id}\"]").into_bytes(),
        125..130 => {
            format!("{{\"id\":\"{id}\",\"large\":\"{}\"}}", "x".repeat(rng.usize(70_000..300_000))).into_bytes()
        }
        130 => format!("{{\"id\":\"{id}\",\"large\":\"{}\"}}", "x".repeat(8 << 20)).into_bytes(),
        131..136 => mischief("trap"),
        136..138 => mischief("loop"),
        138..142 => mischief("grow"),
        142..150 => mischief("unavailable"),
        150..155 => mischief("not-json"),
        155..160 => format!("{{\"id\":\"../{id}/\\u00e9\",\"amount\":{amount}}}").into_bytes(),
        _ => format!(
            "{{\"id\":\"{id}\",\"amount\":{amount},\"src_ip\":\"192.0.2.{}\",\"pad\":\"{}\"}}",
            rng.u8(..),
            "y".repeat(rng.usize(0..600))
        )
        .into_bytes(),
    }
}

#[test]
fn a_seed_makes_the_same_plan_again_and_another_seed_another_one() {
    let of = |seed: u64| {
        let alerts: Vec<_> = (0..300).map(|number| alert(seed, number)).collect();
        let server: Vec<_> = server(seed).take(100).collect();
        let hosts: Vec<_> = hosts(seed).take(100).collect();
        let operator: Vec<_> = operator(seed).take(100).collect();
        (alerts, server, hosts, operator)
    };
    let (first, again, other) = (of(7), of(7), of(8));
    assert!(first == again && first.0 != other.0 && first.1 != other.1 && first.2 != other.2 && first.3 != other.3);
    assert!(first.0.iter().all(|alert| !alert.contains(&b'\n') && !alert.is_empty()));
}

#[test]
fn every_fault_of_the_mix_comes_within_a_few_hundred_steps() {
    let kinds = |seed: u64| {
        let mut kinds = std::collections::BTreeSet::new();
        let name = |debug: String| debug.split(['(', ' ']).next().unwrap_or_default().to_owned();
        kinds.extend(server(seed).take(300).map(|(_, fault)| name(format!("S{fault:?}"))));
        kinds.extend(hosts(seed).take(300).map(|(_, fault)| name(format!("H{fault:?}"))));
        kinds.extend(operator(seed).take(300).map(|(_, deed)| name(format!("O{deed:?}"))));
        kinds.len()
    };
    assert_eq!(kinds(1), 7 + 4 + 4);
}
