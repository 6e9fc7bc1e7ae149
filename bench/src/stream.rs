//! From stream to stream as fast as the client library can: what the floor and the peers have in common. One connection reads a
//! hundred entries at a time; each worker makes a record of every alert, adds them to the store, acks and deletes them in one MULTI, on
//! a connection of its own. All of them are always busy. No duplicates are looked for, and no owner is asked.
//!
//! Knows nothing of the rest of the benchmark: the peers, which are built apart, take this file as well.

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;
use redis::{Client, Value};
use tokio::sync::mpsc;

const STREAM: &str = "alerts";
const STORE: &str = "alerts:enriched";
const GROUP: &str = "dossier";
const BATCH: usize = 100;

/// How many batches may wait for a worker.
const AHEAD: usize = 4;

/// An entry: its id, and the alert.
type Entry = (Vec<u8>, Vec<u8>);

/// Moves alerts until it is killed. `workers` are what makes a record of an alert.
///
/// # Errors
/// The server does not answer, or not what was asked; or a worker fails.
pub fn run<W>(url: &str, workers: Vec<W>) -> Result<()>
where
    W: FnMut(Vec<u8>) -> Result<Vec<u8>> + Send + 'static,
{
    let client = Client::open(url)?;
    let mut runtime = match workers.len() {
        // Everything waits for the server: a second thread would only be woken up.
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(async {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let reader = client.get_multiplexed_async_connection_with_config(&config).await?;
        let (mut inputs, mut tasks) = (Vec::new(), tokio::task::JoinSet::new());
        for worker in workers {
            let writer = client.get_multiplexed_async_connection_with_config(&config).await?;
            let (input, waiting) = mpsc::channel(AHEAD);
            inputs.push(input);
            tasks.spawn(work(writer, waiting, worker));
        }
        println!("{{\"message\":\"host ready\"}}");
        tasks.spawn(read(reader, inputs));
        tasks.join_next().await.context("there are no workers")??
    })
}

/// Gives the workers batches in turn.
async fn read(mut reader: MultiplexedConnection, workers: Vec<mpsc::Sender<Vec<Entry>>>) -> Result<()> {
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(GROUP).arg("reader").arg("COUNT").arg(BATCH).arg("BLOCK").arg(1000);
    command.arg("STREAMS").arg(STREAM).arg(">");
    for worker in workers.iter().cycle() {
        let batch = loop {
            let reply: Value = command.query_async(&mut reader).await?;
            if reply != Value::Nil {
                break entries(reply).context("XREADGROUP answered something else than entries")?;
            }
        };
        worker.send(batch).await.context("a worker is gone")?;
    }
    Ok(())
}

async fn work(
    mut writer: MultiplexedConnection,
    mut waiting: mpsc::Receiver<Vec<Entry>>,
    mut record: impl FnMut(Vec<u8>) -> Result<Vec<u8>>,
) -> Result<()> {
    while let Some(batch) = waiting.recv().await {
        let mut commit = redis::pipe();
        commit.atomic();
        let mut ids = Vec::with_capacity(batch.len());
        for (id, alert) in batch {
            commit.cmd("XADD").arg(STORE).arg("*").arg("record").arg(record(alert)?).ignore();
            ids.push(id);
        }
        commit.cmd("XACK").arg(STREAM).arg(GROUP).arg(&ids).ignore();
        commit.cmd("XDEL").arg(STREAM).arg(&ids).ignore();
        commit.exec_async(&mut writer).await?;
    }
    Ok(())
}

fn entries(reply: Value) -> Option<Vec<Entry>> {
    let list = |value| match value {
        Value::Array(values) => Some(values),
        _ => None,
    };
    let bytes = |value| match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    };
    let stream = list(list(reply)?.pop()?)?;
    let entry = |value| {
        let [id, fields] = list(value)?.try_into().ok()?;
        Some((bytes(id)?, bytes(list(fields)?.pop()?)?))
    };
    list(stream.into_iter().nth(1)?)?.into_iter().map(entry).collect()
}
