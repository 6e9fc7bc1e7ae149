//! What a host takes in memory when nothing goes on, and what each plugin and a block list add to that.

use anyhow::Result;

use super::{Place, Target};
use crate::process::memory;
use crate::row::Row;
use crate::site::{Filled, Plan, install_another};

/// How many idle plugins the figure of one is taken from.
const MORE: usize = 10;

pub(super) fn measure(place: &Place<'_>) -> Result<Vec<Target>> {
    let idle = |filled, more: usize| {
        let mut plan = Plan::new(&place.queue(), place.state, 1);
        plan.filled = filled;
        for number in 0..more {
            let name = format!("c{number:04}");
            let settings = "settings = { call = \"address\", times = 1 }";
            plan.steps.push_str(&format!("\n[[step]]\nplugin = \"{name}\"\ntables = [\"blocklist\"]\n{settings}\n"));
        }
        let site = plan.build()?;
        (0..more).try_for_each(|number| install_another(&site, number).map(drop))?;
        let row = Row::host("idle", site, place.server)?;
        // Once before: what is compiled must not be in the figure.
        drop(row.start()?);
        memory(row.start()?.pid)
    };
    let (empty, with_list, with_more) =
        (idle(Filled::None, 0)?, idle(Filled::BlockList, 0)?, idle(Filled::None, MORE)?);
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let of = |other: u64| format!("{:.1} MB, and {:.1} MB with it", mb(empty), mb(other));
    let target = |what: &str, figure, at_most, of| Target { what: what.to_owned(), figure, at_most, unit: "MB", of };
    Ok(vec![
        target("a host with four plugins and empty tables (Pss)", mb(empty), 60.0, String::new()),
        target(
            "each further idle Rust plugin (Pss)",
            mb(with_more.saturating_sub(empty)) / MORE as f64,
            2.0,
            format!("{:.1} MB, and {:.1} MB with {MORE} more", mb(empty), mb(with_more)),
        ),
        target("the block list of 120,000 addresses (Pss)", mb(with_list.saturating_sub(empty)), 12.0, of(with_list)),
    ])
}
