//! The floor: what the queue and the client library can do when nothing is done with an alert. One connection reads a hundred
//! entries at a time, another adds them to the store, acks and deletes them in one MULTI; both are always busy. No decoding, no
//! script, no log.

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;
use redis::{Client, Value};
use tokio::sync::mpsc;

use crate::place::{GROUP, STORE, STREAM};
use crate::site::BATCH;

/// How many batches may wait for the second connection.
const AHEAD: usize = 4;

/// An entry: its id, and the alert.
type Entry = (Vec<u8>, Vec<u8>);

/// Moves alerts until it is killed.
///
/// # Errors
/// The server does not answer, or not what was asked.
pub fn run(url: &str) -> Result<()> {
    let client = Client::open(url)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let reader = client.get_multiplexed_async_connection_with_config(&config).await?;
        let writer = client.get_multiplexed_async_connection_with_config(&config).await?;
        println!("{{\"message\":\"host ready\"}}");
        let (batches, waiting) = mpsc::channel(AHEAD);
        tokio::try_join!(read(reader, batches), commit(writer, waiting)).map(drop)
    })
}

async fn read(mut reader: MultiplexedConnection, batches: mpsc::Sender<Vec<Entry>>) -> Result<()> {
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(GROUP).arg("floor").arg("COUNT").arg(BATCH).arg("BLOCK").arg(1000);
    command.arg("STREAMS").arg(STREAM).arg(">");
    loop {
        let reply: Value = command.query_async(&mut reader).await?;
        if reply != Value::Nil {
            let batch = entries(reply).context("XREADGROUP answered something else than entries")?;
            batches.send(batch).await.context("the second connection is gone")?;
        }
    }
}

async fn commit(mut writer: MultiplexedConnection, mut waiting: mpsc::Receiver<Vec<Entry>>) -> Result<()> {
    while let Some(batch) = waiting.recv().await {
        let mut commit = redis::pipe();
        commit.atomic();
        for (_, alert) in &batch {
            commit.cmd("XADD").arg(STORE).arg("*").arg("record").arg(alert).ignore();
        }
        let ids: Vec<_> = batch.iter().map(|(id, _)| id).collect();
        commit.cmd("XACK").arg(STREAM).arg(GROUP).arg(&ids).ignore();
        commit.cmd("XDEL").arg(STREAM).arg(&ids).ignore();
        commit.query_async::<()>(&mut writer).await?;
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
