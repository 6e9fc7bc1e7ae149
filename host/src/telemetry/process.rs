//! What the process itself uses, read when it is asked for, under the names that every Prometheus exporter gives it. Where
//! there is no `/proc` it says less.

use std::fmt;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::time::{ClockId, clock_gettime};

/// The process.
#[derive(Debug)]
pub(super) struct Process {
    started: SystemTime,
}

impl Process {
    /// The process, which begins now.
    pub(super) fn new() -> Self {
        Self { started: SystemTime::now() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut show = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        show(
            "process_start_time_seconds",
            "When the host started, in Unix time.",
            &ConstGauge::new(started.as_secs_f64()),
        )?;
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = Duration::try_from(cpu).unwrap_or_default();
        show(
            "process_cpu_seconds",
            "CPU time that the host used, in user and system mode.",
            &ConstCounter::new(cpu.as_secs_f64()),
        )?;
        if let Some(bytes) = resident_bytes() {
            show("process_resident_memory_bytes", "Memory that the host occupies.", &ConstGauge::new(bytes))?;
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            let open = u64::try_from(files.count()).unwrap_or(u64::MAX);
            show("process_open_fds", "Open file descriptors.", &ConstGauge::new(open))?;
        }
        Ok(())
    }
}

/// From `VmRSS:   12345 kB` in proc(5)'s `status`.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}
