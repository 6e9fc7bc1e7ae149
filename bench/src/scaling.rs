//! How the figures of a fresh row change with one thing at a time: workers, hosts, batch, size of alerts, steps, languages of plugins,
//! plugins in the folder.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use dossier_authoring::language::Language;
use dossier_tests::author::new_plugin;
use dossier_tests::host::Site;
use dossier_tests::redis_server::RedisServer;
use serde::Serialize;

use crate::alerts::Alerts;
use crate::latency::{self, Latency};
use crate::measure::median;
use crate::row::{self, Row};
use crate::site::{self, Plan, install_another, step};
use crate::throughput::{self, Throughput};

/// The most bytes of alerts in one run.
const BYTES: f64 = 256e6;

/// What `dossier-bench scaling` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Short runs, and few of them: shows that all of it works
    #[arg(long)]
    quick: bool,
    /// Only what changes one of these, as in batch,steps
    #[arg(long, value_name = "THING,…", value_delimiter = ',')]
    only: Vec<String>,
    /// How many runs each figure is the median of
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// How long a run is about to take, in seconds
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// One case. Times are in microseconds.
#[derive(Debug, Serialize)]
struct Figures {
    /// What changes, and what it is here.
    thing: &'static str,
    value: String,
    /// The least, the median and the most of the runs.
    alerts_per_second: [f64; 3],
    bytes_per_second: f64,
    host_us: f64,
    server_us: f64,
    /// The median and the 99th percentile at half of the rate above.
    half_load: [f64; 2],
    /// The most of all hosts together, in bytes.
    memory: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    cases: Vec<Figures>,
    /// What could not be measured here, and why.
    missing: Vec<String>,
}

/// A case that is to be measured.
struct Case<'a> {
    thing: &'static str,
    value: String,
    hosts: Vec<Row<'a>>,
    alerts: Alerts,
}

/// Measures, and prints a [`Report`].
///
/// # Errors
/// A host does not take its alerts.
pub fn run(arguments: &Arguments) -> Result<()> {
    row::check_built();
    let (server, state, alerts) = (RedisServer::start()?, tempfile::tempdir()?, Alerts::load()?);
    let maker = Maker { server: &server, state: state.path(), alerts, quick: arguments.quick };
    let (runs, seconds) = if arguments.quick { (1, 0.1) } else { (arguments.runs, arguments.seconds) };
    let (mut report, mut missing) = (Vec::new(), Vec::new());
    type Make = for<'a> fn(&Maker<'a>, &mut Vec<String>) -> Result<Vec<Case<'a>>>;
    let things: [(&str, Make); 7] = [
        ("workers", |maker, _| maker.workers()),
        ("hosts", |maker, _| maker.hosts()),
        ("batch", |maker, _| maker.batch()),
        ("size", |maker, _| maker.size()),
        ("steps", |maker, _| maker.steps()),
        ("language", |maker, missing| maker.languages(missing)),
        ("folder", |maker, _| maker.folder()),
    ];
    for name in &arguments.only {
        let known = things.map(|(name, _)| name);
        anyhow::ensure!(
            known.contains(&name.as_str()),
            "nothing is called \"{name}\"; there are: {}",
            known.join(", ")
        );
    }
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|one| one == name);
    for (_, make) in things.iter().filter(|(name, _)| wanted(name)) {
        report.extend(measure(make(&maker, &mut missing)?, runs, seconds, arguments.quick)?);
    }
    println!("{}", serde_json::to_string(&Report { cases: report, missing })?);
    Ok(())
}

/// Runs cases in turn, so that what the machine does meanwhile falls on all of them.
fn measure(mut cases: Vec<Case<'_>>, runs: usize, seconds: f64, quick: bool) -> Result<Vec<Figures>> {
    let first = if quick { 100 } else { 1000 };
    let (mut counts, mut memory) = (Vec::new(), Vec::new());
    for case in &mut cases {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of alerts is not negative"
        )]
        let most = (BYTES / case.alerts.mean) as u64;
        // This run tells how many alerts fill the time, and nothing else.
        let one = throughput::measure_group(&mut case.hosts, &case.alerts, first, false)?;
        let count = throughput::enough(one.rate(), seconds).clamp(first, most.max(first));
        memory.push(throughput::measure_group(&mut case.hosts, &case.alerts, count, true)?.memory);
        counts.push(count);
    }
    let mut through: Vec<Vec<Throughput>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..runs {
        for ((case, count), through) in cases.iter_mut().zip(&counts).zip(&mut through) {
            through.push(throughput::measure_group(&mut case.hosts, &case.alerts, *count, false)?);
        }
    }
    let all = cases.into_iter().zip(&through).zip(memory);
    all.map(|((case, through), memory)| figures(case, through, memory, seconds)).collect()
}

fn figures(mut case: Case<'_>, through: &[Throughput], memory: u64, seconds: f64) -> Result<Figures> {
    let rates = || through.iter().map(Throughput::rate);
    let rate = median(rates());
    let half = latency::measure(&mut case.hosts, &case.alerts, rate / 2.0, Duration::from_secs_f64(seconds))?;
    let Latency { p50, p99 } = half;
    eprintln!("{} {}: {rate:.0} alerts/s, p99 {p99:.0} µs at half of that", case.thing, case.value);
    Ok(Figures {
        thing: case.thing,
        value: case.value,
        alerts_per_second: [rates().fold(f64::INFINITY, f64::min), rate, rates().fold(0.0, f64::max)],
        bytes_per_second: rate * case.alerts.mean,
        host_us: median(through.iter().map(Throughput::host_us)),
        server_us: median(through.iter().filter_map(Throughput::server_us)),
        half_load: [p50, p99],
        memory,
    })
}

/// Makes the cases.
struct Maker<'a> {
    server: &'a RedisServer,
    state: &'a Path,
    alerts: Alerts,
    quick: bool,
}

impl<'a> Maker<'a> {
    fn plan(&self) -> Plan<'a> {
        Plan::new(&format!("kind = \"redis\"\nurl = \"{}\"", self.server.url()), self.state, 1)
    }

    fn case(&self, thing: &'static str, value: impl ToString, sites: Vec<Site>) -> Result<Case<'a>> {
        let value = value.to_string();
        let hosts = sites.into_iter().map(|site| Row::host(&format!("{thing} {value}"), site, self.server));
        Ok(Case { thing, hosts: hosts.collect::<Result<_>>()?, alerts: self.alerts.clone(), value })
    }

    /// The first and the last of them, where it must be quick.
    fn some<T: Copy>(&self, all: &[T]) -> Vec<T> {
        match all {
            [first, .., last] if self.quick => vec![*first, *last],
            all => all.to_vec(),
        }
    }

    fn workers(&self) -> Result<Vec<Case<'a>>> {
        let case = |workers: usize| {
            let mut case = self.case("worker threads", workers, vec![self.plan().build()?])?;
            case.hosts[0].variables.push(("TOKIO_WORKER_THREADS", workers.to_string()));
            Ok(case)
        };
        self.some(&[1, 2, 3, 4]).into_iter().map(case).collect()
    }

    fn hosts(&self) -> Result<Vec<Case<'a>>> {
        let states = [self.state.to_owned(), self.state.join("second")];
        let case = |hosts: usize| {
            let site = |state| Plan { state, ..self.plan() }.build();
            self.case(
                "hosts in one group",
                hosts,
                states[..hosts].iter().map(|state| site(state)).collect::<Result<_>>()?,
            )
        };
        [1, 2].into_iter().map(case).collect()
    }

    fn batch(&self) -> Result<Vec<Case<'a>>> {
        let case = |batch| self.case("batch", batch, vec![Plan { batch, ..self.plan() }.build()?]);
        self.some(&[1, 10, 100, 1000]).into_iter().map(case).collect()
    }

    fn size(&self) -> Result<Vec<Case<'a>>> {
        let case = |size: usize| {
            let case = self.case("size of an alert, KiB", size as f64 / 1024.0, vec![self.plan().build()?])?;
            Ok(Case { alerts: self.alerts.sized(size)?, ..case })
        };
        self.some(&[512, 4096, 16 << 10, 64 << 10]).into_iter().map(case).collect()
    }

    fn steps(&self) -> Result<Vec<Case<'a>>> {
        let case = |steps: usize| {
            let one = |place: usize| {
                // The verdict is the last; before it the others, again and again under other names.
                let last = place + 1 == steps && steps > 1;
                let plugin = if last { site::PLUGINS[3] } else { site::PLUGINS[place % 3] };
                let name = if last || place < 3 { plugin.to_owned() } else { format!("{plugin}-{place}") };
                step(plugin, &name, 1)
            };
            let steps_text = (0..steps).map(one).collect::<Vec<_>>().join("\n");
            self.case("steps", steps, vec![Plan { steps: steps_text, ..self.plan() }.build()?])
        };
        self.some(&[1, 4, 16]).into_iter().map(case).collect()
    }

    /// The plugin that `dossier plugin new` writes, as the one step, in each language.
    fn languages(&self, missing: &mut Vec<String>) -> Result<Vec<Case<'a>>> {
        let mut cases = Vec::new();
        if self.quick {
            // Where they were not built before that takes minutes.
            return Ok(cases);
        }
        for (language, word) in
            [(Language::Rust, "Rust"), (Language::JavaScript, "JavaScript"), (Language::Python, "Python")]
        {
            let plugin = match new_plugin(language) {
                Ok(plugin) => plugin,
                Err(why) => {
                    missing.push(format!("plugins in {word}: {why}"));
                    continue;
                }
            };
            let bytes = std::fs::read(plugin.component()).context("a plugin that was built is gone")?;
            for (reuse, how) in [(1, "fresh"), (site::REUSE, "reused")] {
                let steps = format!(
                    "[[step]]\nplugin = \"{}\"\ntables = [\"blocklist\"]\nsettings = {{ table = \"blocklist\" }}\n\
                     memory = \"64MiB\"\nreuse = {reuse}\n",
                    plugin.name
                );
                let site = Plan { steps, ..self.plan() }.build()?;
                site.write(&format!("plugins/{}.wasm", plugin.name), &bytes);
                cases.push(self.case("language of one step", format!("{word}, {how}"), vec![site])?);
            }
        }
        Ok(cases)
    }

    fn folder(&self) -> Result<Vec<Case<'a>>> {
        let case = |plugins: usize| {
            let site = self.plan().build()?;
            (site::PLUGINS.len()..plugins).try_for_each(|number| install_another(&site, number).map(drop))?;
            self.case("plugins in the folder", plugins, vec![site])
        };
        self.some(&[4, 20, 100]).into_iter().map(case).collect()
    }
}
