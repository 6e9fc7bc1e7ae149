//! How long a host takes from its start to its first stored alert, when the plugins were compiled before.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Place, Target};
use crate::measure::median;
use crate::row::Row;
use crate::site::Plan;

const STARTS: usize = 7;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn measure(place: &Place<'_>) -> Result<Target> {
    let site = Plan::new(&place.queue(), place.state, 1).build()?;
    let mut row = Row::host("start", site, place.server)?;
    row.place.clear()?;
    drop(row.start()?);
    let mut took = Vec::new();
    for _ in 0..if place.quick { 1 } else { STARTS } {
        row.place.clear()?;
        row.place.fill(place.alerts, 1)?;
        row.place.fire()?;
        let watch = row.place.watch(Arc::new(AtomicU64::new(1)), PATIENCE)?;
        let began = Instant::now();
        let _host = row.begin()?;
        let seen = watch.join().map_err(|_| anyhow::anyhow!("the reader of the store panicked"))??;
        let (_, stored) = seen.first().context("the first alert after a start is not stored")?;
        took.push(stored.duration_since(began).as_secs_f64() * 1e3);
    }
    let (least, most) =
        took.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), &one| (least.min(one), most.max(one)));
    Ok(Target {
        what: "from a host's start to its first stored alert, compiled code cached".to_owned(),
        figure: median(took.iter().copied()),
        at_most: 300.0,
        unit: "ms",
        of: format!("median of {}, from {least:.0} to {most:.0} ms; tables as in the rows", took.len()),
    })
}
