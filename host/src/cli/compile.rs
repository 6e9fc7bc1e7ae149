//! `dossier compile`: the child process in which the host compiles and configures a plugin. Hidden, but of use by hand: it
//! says as one JSON object what the host would say about a plugin.

use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal, getppid, nice, set_parent_process_death_signal, setrlimit};

use crate::plugin::snapshot::{Report, Request, compile};
use crate::plugin::{COMPILE_MEMORY, MAX_COMPONENT, too_large};

/// How long after the signal that says that its processor time is used up the process is killed, in seconds.
const CPU_GRACE: u64 = 5;

/// Compiles a plugin as the host does.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  dossier compile --output geo.cwasm plugins/geo.wasm\n  \
                        dossier compile --settings settings.json --output verdict.cwasm - < verdict.wasm")]
pub struct Args {
    /// The component; "-" reads it from the standard input
    component: PathBuf,
    /// A file with the plugin's settings, a JSON object
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Where to write the machine code
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The cap on the plugin's memory, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    memory: usize,
    /// How much processor time it may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    cpu_seconds: u64,
    /// How much memory it may write to, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = COMPILE_MEMORY)]
    data: u64,
    /// Run only when nobody else wants the processor
    #[arg(long)]
    gives_way: bool,
    /// End when this process, which started this one, ends
    #[arg(long, value_name = "PID")]
    parent: Option<i32>,
}

/// Compiles, and writes the report to the standard output. Fails when the plugin is refused, or when nothing can be read or
/// written.
pub fn run(args: &Args) -> ExitCode {
    let report = match bound(args).and_then(|()| work(args)) {
        Ok(report) => report,
        Err(error) => Report::Refused { why: error.to_string(), said: Vec::new() },
    };
    let written = serde_json::to_writer(io::stdout(), &report).map_err(io::Error::from);
    match (written.and_then(|()| io::stdout().write_all(b"\n")), report) {
        (Ok(()), Report::Compiled(_)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Gives the process its bounds before it looks at anything that somebody else wrote.
fn bound(args: &Args) -> io::Result<()> {
    if let Some(parent) = args.parent {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before we asked to be told.
        if getppid().is_none_or(|now| now.as_raw_nonzero().get() != parent) {
            return Err(io::Error::other("the host is gone"));
        }
    }
    let cpu = args.cpu_seconds;
    for (resource, limit, maximum) in [
        (Resource::Data, args.data, args.data),
        (Resource::Cpu, cpu, cpu.saturating_add(CPU_GRACE)),
        (Resource::Core, 0, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(maximum) })?;
    }
    // Where the machine runs out of memory all the same it takes this process, and not the host. Not every system knows that.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    // Where priorities cannot be lowered it runs with the one it has.
    let _ = nice(10);
    if args.gives_way {
        give_way();
    }
    Ok(())
}

/// Lets everybody else come first, at once; where the system does not, the low priority stays.
fn give_way() {
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "a call of the system that only reads the number that it is given")]
    // SAFETY: zeroes are what this policy wants of all fields, and the pointer is valid while the call lasts.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &std::mem::zeroed());
    }
}

fn work(args: &Args) -> io::Result<Report> {
    let mut bytes = Vec::new();
    let longest = MAX_COMPONENT + 1;
    if args.component.as_os_str() == "-" {
        io::stdin().lock().take(longest).read_to_end(&mut bytes)?;
    } else {
        fs::File::open(&args.component)?.take(longest).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_COMPONENT {
        return Ok(Report::Refused { why: too_large(), said: Vec::new() });
    }
    let settings = args.settings.as_ref().map_or_else(|| Ok("{}".to_owned()), fs::read_to_string)?;
    // Read and written again, so that only what JSON escapes stands in it.
    let settings = serde_json::from_str::<serde_json::Value>(&settings)?.to_string();
    let request = Request { settings, memory: args.memory };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    match runtime.block_on(compile(&bytes, &request)) {
        Ok((code, compiled)) => {
            fs::write(&args.output, code)?;
            Ok(Report::Compiled(compiled))
        }
        Err((why, said)) => Ok(Report::Refused { why, said }),
    }
}
