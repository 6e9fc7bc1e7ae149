//! What may happen to a queue, and how a random series of it is made. Numbers in an operation choose among what there is when it
//! is its turn, so that any series makes sense, and so does any part of one.

use bytes::Bytes;
use proptest::prelude::*;

/// How many hosts share a queue.
pub const HOSTS: usize = 3;

/// The largest alert that the queues of these tests take, in bytes.
pub const MAX_ALERT_SIZE: usize = 64;

/// What may happen.
#[derive(Debug, Clone)]
pub enum Operation {
    /// A producer sends these.
    Send(Vec<Bytes>),
    /// A host takes up to so many.
    Receive(usize, usize),
    /// A host commits some of what it holds, by a digit for each: 0 and 1 store, 2 buries, 3 waits. Then, perhaps, it
    /// commits the same again, as after a reply that was lost.
    Commit(usize, Vec<u8>, bool),
    /// A host drops one of those that it holds.
    Drop(usize, usize),
    /// A host notes that a suspect's process died.
    Accuse(usize, usize),
    /// A host dies.
    Crash(usize),
    /// Hosts die one after the other, as many as the last number says, each after it noted that a suspect's process died.
    Condemn(usize, usize, usize),
    /// A host ends as it should; with true, what it held is committed late.
    Close(usize, bool),
    /// A host is taken for dead and lives.
    Rob(usize),
    /// A dead letter goes back.
    Replay(usize),
    /// A dead letter is dropped.
    Discard(usize),
    /// Somebody deletes an alert from the queue.
    Trim(usize),
}

/// Alerts of few ids and few bytes, so that duplicates and conflicts are the rule; some are too large.
fn alert() -> impl Strategy<Value = Bytes> {
    (0..3u8, 0..8u8).prop_map(|(id, n)| match n {
        7 => format!("{{\"id\":\"{id}\",\"n\":\"{}\"}}", "x".repeat(MAX_ALERT_SIZE)).into(),
        n => format!("{{\"id\":\"{id}\",\"n\":{}}}", n / 3).into(),
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let host = 0..HOSTS;
    prop_oneof![
        4 => prop::collection::vec(alert(), 1..5).prop_map(Operation::Send),
        8 => (host.clone(), 1..6usize).prop_map(|(host, max)| Operation::Receive(host, max)),
        6 => (host.clone(), prop::collection::vec(0..4u8, 1..6), any::<bool>())
            .prop_map(|(host, ends, again)| Operation::Commit(host, ends, again)),
        1 => (host.clone(), any::<usize>()).prop_map(|(host, which)| Operation::Drop(host, which)),
        3 => (host.clone(), any::<usize>()).prop_map(|(host, which)| Operation::Accuse(host, which)),
        3 => host.clone().prop_map(Operation::Crash),
        2 => (host.clone(), any::<usize>(), 1..5usize)
            .prop_map(|(host, which, times)| Operation::Condemn(host, which, times)),
        1 => (host.clone(), any::<bool>()).prop_map(|(host, late)| Operation::Close(host, late)),
        1 => host.prop_map(Operation::Rob),
        3 => any::<usize>().prop_map(Operation::Replay),
        1 => any::<usize>().prop_map(Operation::Discard),
        1 => any::<usize>().prop_map(Operation::Trim),
    ]
}

/// Several series, to be run side by side, because many wait for time to pass.
pub fn series() -> impl Strategy<Value = Vec<Vec<Operation>>> {
    prop::collection::vec(prop::collection::vec(operation(), 1..40), 1..12)
}
