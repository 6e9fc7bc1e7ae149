//! The process of suspects, from outside: `dossier trial`, started when there is a suspect, kept while there are more.
//!
//! It ends with the host, however that ends: its standard input ends then, and it kills itself. It hears no signal that is meant for the
//! host (it has its own process group, and ignores what it is asked), so that whatever it dies of is its suspect's doing, or
//! somebody's who means just it.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::wire::{self, Answer, Request, Suspect};
use super::{Case, Ended, Isolation, Progress, Trial, TrialError};
use crate::config::Config;
use crate::pipeline::Pipeline;
use crate::tables::Snapshot;
use crate::telemetry::Telemetry;
use crate::telemetry::redact::Masks;

/// How long a process may take to load plugins and tables.
const START: Duration = Duration::from_secs(300);

/// How long to wait before another one is started after one that could not: at first, and at the most, doubling.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// How long a process is kept that nobody needs.
const IDLE: Duration = Duration::from_secs(5);

/// What a suspect may take beyond twice the time of all its calls, before it is taken for hanging: no slow machine makes a minute of
/// what takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much a process may complain, in bytes.
const MAX_COMPLAINT: u64 = 4 << 10;

/// Runs suspects in processes of their own.
pub struct Processes {
    program: PathBuf,
    config: Arc<Config>,
    telemetry: Arc<Telemetry>,
    /// The one that new suspects go to.
    current: Mutex<Option<Current>>,
    /// Why the last one did not start, until when none is tried, and how long the next pause is.
    failed: Mutex<Option<(String, Instant, Duration)>>,
    suspects: AtomicU64,
}

/// A process, and what its suspects begin with.
struct Current {
    pipeline: Arc<Pipeline>,
    tables: Arc<Snapshot>,
    jobs: mpsc::Sender<Job>,
}

/// Something to do for a suspect.
struct Job {
    request: Request,
    bytes: Bytes,
    /// What must not be said of it while it runs: its events come out here.
    masks: Masks,
    reply: oneshot::Sender<Result<Reply, TrialError>>,
}

enum Reply {
    Done(Box<Ended>),
    Wait(Duration),
}

impl Processes {
    /// With the program that knows `trial`. `config` is what the host began with, whatever its file holds by now; what was reloaded comes
    /// with the pipeline.
    pub fn new(program: PathBuf, config: Arc<Config>, telemetry: Arc<Telemetry>) -> Self {
        Self {
            program,
            config,
            telemetry,
            current: Mutex::default(),
            failed: Mutex::default(),
            suspects: AtomicU64::new(0),
        }
    }

    /// This program, even when its file was replaced by a newer one meanwhile.
    pub fn of_this_program(config: Arc<Config>, telemetry: Arc<Telemetry>) -> Self {
        Self::new(PathBuf::from("/proc/self/exe"), config, telemetry)
    }

    /// The way to a process that has this pipeline and these tables.
    async fn jobs(&self, pipeline: &Arc<Pipeline>, tables: &Arc<Snapshot>) -> Result<mpsc::Sender<Job>, String> {
        if let Some(current) = &*lock(&self.current)
            && Arc::ptr_eq(&current.pipeline, pipeline)
            && Arc::ptr_eq(&current.tables, tables)
            && !current.jobs.is_closed()
        {
            return Ok(current.jobs.clone());
        }
        if let Some((why, until, _)) = &*lock(&self.failed)
            && *until > Instant::now()
        {
            return Err(why.clone());
        }
        let process = match timeout(START, self.start(pipeline)).await {
            Ok(started) => started,
            Err(_) => Err(format!("a process for them did not load everything within {} s", START.as_secs())),
        };
        let process = process.inspect_err(|why| {
            let mut failed = lock(&self.failed);
            let pause = failed.as_ref().map_or(RETRY, |(_, _, pause)| pause.saturating_mul(2).min(MAX_RETRY));
            *failed = Some((why.clone(), Instant::now() + pause, pause));
        })?;
        *lock(&self.failed) = None;
        let calls: Duration = pipeline.steps().iter().map(|step| step.config.limits.timeout).sum();
        let (jobs, receiver) = mpsc::channel(1);
        tokio::spawn(serve(process, receiver, Arc::clone(&self.telemetry), calls * 2 + PATIENCE));
        let (pipeline, tables) = (Arc::clone(pipeline), Arc::clone(tables));
        // The one before, if it still has suspects that wait, lives until they are through.
        *lock(&self.current) = Some(Current { pipeline, tables, jobs: jobs.clone() });
        Ok(jobs)
    }

    /// Starts a process and waits until it has loaded everything. It ends when what is given is dropped.
    async fn start(&self, pipeline: &Pipeline) -> Result<Process, String> {
        let no = |error: std::io::Error| format!("no process can be started for them: {error}");
        let mut child = Command::new(&self.program)
            .arg0("dossier")
            .arg("trial")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(no)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no process can be started for them: it has no pipes".to_owned());
        };
        let complaint = child.stderr.take().map(|stderr| tokio::spawn(complaint(stderr)));
        let mut process = Process { child, input, output: BufReader::new(output), complaint };
        let Config { file, text, .. } = pipeline.setup().map_or(&*self.config, |setup| &*setup.config);
        let request = Request::Prepare { file: file.clone(), text: text.0.clone(), cast: pipeline.cast() };
        let said = match process.say(&request, b"").await {
            Ok(()) => wire::read(&mut process.output).await,
            Err(error) => Err(error),
        };
        match said {
            Ok(Some((Answer::Ready, _))) => Ok(process),
            Ok(Some((Answer::Refused { why }, _))) => Err(why),
            Ok(Some(_)) => Err("the process for them says what makes no sense".to_owned()),
            Ok(None) | Err(_) => {
                Err(format!("the process for them ended as it loaded everything: {}", process.end().await))
            }
        }
    }
}

#[async_trait]
impl Isolation for Processes {
    async fn admit(
        &self,
        case: Case,
        pipeline: &Arc<Pipeline>,
        tables: &Arc<Snapshot>,
    ) -> Result<Box<dyn Trial>, String> {
        let jobs = self.jobs(pipeline, tables).await?;
        let number = self.suspects.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Remote { jobs, number, new: Some(case.taken_apart()) }))
    }
}

/// A suspect in a process.
struct Remote {
    jobs: mpsc::Sender<Job>,
    number: u64,
    /// What is to be sent, before it has begun.
    new: Option<(Suspect, Bytes)>,
}

#[async_trait]
impl Trial for Remote {
    async fn advance(&mut self) -> Result<Progress, TrialError> {
        let number = self.number;
        let (request, bytes) = match self.new.take() {
            Some((suspect, bytes)) => (Request::Begin { number, suspect }, bytes),
            None => (Request::Resume { number }, Bytes::new()),
        };
        let (reply, replied) = oneshot::channel();
        let masks = Masks::current();
        self.jobs.send(Job { request, bytes, masks, reply }).await.map_err(|_| TrialError::Gone)?;
        match replied.await {
            Ok(Ok(Reply::Done(ended))) => Ok(Progress::Done(ended)),
            Ok(Ok(Reply::Wait(after))) => Ok(Progress::Wait(Instant::now() + after)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(TrialError::Gone),
        }
    }
}

/// Does jobs, one after the other, until nobody needs the process any more, or until it is gone.
async fn serve(mut process: Process, mut jobs: mpsc::Receiver<Job>, telemetry: Arc<Telemetry>, limit: Duration) {
    loop {
        let job = tokio::select! {
            biased;
            _ = process.child.wait() => return,
            job = timeout(IDLE, jobs.recv()) => job,
        };
        let job = match job {
            Ok(Some(job)) => job,
            // One is kept for those that may come; the others are suspects that wait.
            Err(_) if jobs.sender_strong_count() > 1 => continue,
            Ok(None) | Err(_) => return,
        };
        let mut began = false;
        let turn = process.turn(&job.request, &job.bytes, &telemetry, &mut began);
        let replied = timeout(limit, job.masks.during(turn)).await;
        let reply = match replied {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) if began => Err(TrialError::Died(process.end().await)),
            Ok(None) => Err(TrialError::Gone),
            Err(_) if began => Err(TrialError::Died(format!("it did not come back within {} s", limit.as_secs()))),
            Err(_) => Err(TrialError::Gone),
        };
        let over = reply.is_err();
        let _ = job.reply.send(reply);
        if over {
            return;
        }
    }
}

/// A process. Dropping it kills it.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    complaint: Option<JoinHandle<String>>,
}

impl Process {
    async fn say(&mut self, request: &Request, bytes: &[u8]) -> std::io::Result<()> {
        self.input.write_all(&wire::frame(request, bytes)?).await?;
        self.input.flush().await
    }

    /// Has a suspect run as far as it goes; none when the process is lost over it. `began` says whether it had begun then.
    async fn turn(
        &mut self,
        request: &Request,
        bytes: &[u8],
        telemetry: &Telemetry,
        began: &mut bool,
    ) -> Option<Reply> {
        self.say(request, bytes).await.ok()?;
        loop {
            match wire::read(&mut self.output).await.ok()?? {
                (Answer::Began, _) => *began = true,
                (Answer::Event(event), _) => event.emit(telemetry),
                (Answer::Wait { after }, _) => return Some(Reply::Wait(after)),
                (answer, rest) => return Some(Reply::Done(Box::new(answer.ended(rest)?))),
            }
        }
    }

    /// How it ended; it is ended if it has not.
    async fn end(&mut self) -> String {
        /// How long a process that closed its output may take to be gone.
        const FAREWELL: Duration = Duration::from_secs(10);
        let ended = match timeout(FAREWELL, self.child.wait()).await {
            Ok(status) => status.map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string()),
            Err(_) => "it said what makes no sense".to_owned(),
        };
        let _ = self.child.start_kill();
        let complaint = match self.complaint.take() {
            Some(complaint) => timeout(FAREWELL, complaint).await.ok().and_then(Result::ok).unwrap_or_default(),
            None => String::new(),
        };
        let complaint = complaint.lines().map(str::trim).find(|line| !line.is_empty());
        complaint.map_or_else(|| ended.clone(), |complaint| format!("{ended}: {complaint}"))
    }
}

/// Reads what a process complains of up to a bound, and swallows the rest so that it does not block.
async fn complaint(mut from: ChildStderr) -> String {
    let mut bytes = Vec::new();
    // A process that cannot be read from has said nothing; its end tells.
    let _ = (&mut from).take(MAX_COMPLAINT).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves behind what is as good as before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
