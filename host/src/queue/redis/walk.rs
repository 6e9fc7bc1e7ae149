//! The whole of it: the way through a stream, a page at a time, and what the streams have counted.

use std::sync::LazyLock;

use async_trait::async_trait;

use super::keys::Keys;
use super::link::{Call, Source};
use super::{Shared, reply};
use crate::queue::{Flow, Held, Place, QueueError, Walk};

static WALK: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("walk.lua")));
static FLOW: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("flow.lua")));

/// How many entries a page holds at most, and how many bytes, but for the last entry.
const PAGE: usize = 1_000;
const PAGE_BYTES: usize = 8 << 20;

struct StreamWalk<'a> {
    shared: &'a Shared,
    stream: &'a str,
    /// The field that holds the alert, or the record.
    field: &'static str,
    /// Where the next page begins, as XRANGE takes it.
    from: String,
}

impl Shared {
    /// See [`crate::queue::Queue::walk`].
    pub(super) fn walk(&self, place: Place) -> Box<dyn Walk + '_> {
        let (stream, field) = match place {
            Place::Queue => (&self.keys.stream, "alert"),
            Place::Store => (&self.keys.store, "record"),
            Place::Dead => (&self.keys.dead, "alert"),
        };
        Box::new(StreamWalk { shared: self, stream, field, from: "-".to_owned() })
    }

    /// See [`crate::queue::Queue::flow`].
    pub(super) async fn flow(&self) -> Result<Flow, QueueError> {
        let Keys { stream, store, dead, ledger, .. } = &self.keys;
        let answer = self.run(&self.commands, &Call::new(&FLOW, &[stream, store, dead, ledger])).await?;
        let parse = |answer| {
            let [added, waiting, stored, dead, duplicates, kept] = reply::exactly(answer)?;
            Some(Flow {
                added: reply::number(added)?,
                waiting: reply::number(waiting)?,
                stored: reply::number(stored)?,
                dead: reply::number(dead)?,
                duplicates: reply::number(duplicates)?,
                kept: reply::number(kept)?,
            })
        };
        parse(answer).ok_or_else(|| self.commands.nonsense("flow.lua"))
    }
}

#[async_trait]
impl Walk for StreamWalk<'_> {
    async fn next(&mut self) -> Result<Vec<Held>, QueueError> {
        let call = Call::new(&WALK, &[self.stream]).arg(&self.from).arg(PAGE).arg(PAGE_BYTES).arg(self.field);
        let commands = &self.shared.commands;
        let answer = self.shared.run(commands, &call).await?;
        let held = |value| {
            let [key, has, value] = reply::exactly(value)?;
            let has = reply::number(has)? == 1;
            Some(Held { key: reply::text(key)?, bytes: if has { Some(reply::bytes(value)?) } else { None } })
        };
        let page = reply::list(answer).and_then(|page| page.into_iter().map(held).collect::<Option<Vec<_>>>());
        let page = page.ok_or_else(|| commands.nonsense("walk.lua"))?;
        if let Some(last) = page.last() {
            self.from = format!("({}", last.key);
        }
        Ok(page)
    }
}
