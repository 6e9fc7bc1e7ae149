//! The Redis queue from outside. Alerts are filled into a stream of another name, which is then renamed: the host finds all of
//! them at one moment, and every row can be started before.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dossier_tests::redis_server::RedisServer;
use redis::{Connection, Value};

use super::{GROUP, Place, STORE, STREAM, Seen, Sender, Tally};
use crate::alerts::Alerts;

/// Where alerts wait until they are shown.
const HIDDEN: &str = "hidden";

/// The stream of dead letters.
const DEAD: &str = "alerts:dlq";

/// How many alerts are filled in together.
const FILL: u64 = 1000;

/// How many records are compared.
const COMPARED: usize = 1000;

/// The Redis queue.
pub struct RedisPlace<'a> {
    server: &'a RedisServer,
    connection: Connection,
}

impl<'a> RedisPlace<'a> {
    /// The queue on this server, which must be good for nothing else.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn new(server: &'a RedisServer) -> Result<Self> {
        Ok(Self { server, connection: server.connection()? })
    }

    fn length(&mut self, stream: &str) -> Result<u64> {
        Ok(redis::cmd("XLEN").arg(stream).query(&mut self.connection)?)
    }
}

impl Place for RedisPlace<'_> {
    fn clear(&mut self) -> Result<()> {
        redis::cmd("FLUSHALL").exec(&mut self.connection)?;
        let mut group = redis::cmd("XGROUP");
        group.arg("CREATE").arg(STREAM).arg(GROUP).arg("0").arg("MKSTREAM");
        Ok(group.exec(&mut self.connection)?)
    }

    fn fill(&mut self, alerts: &Alerts, count: u64) -> Result<()> {
        for first in (0..count).step_by(usize::try_from(FILL)?) {
            let mut some = redis::pipe();
            for n in first..(first + FILL).min(count) {
                some.cmd("XADD").arg(HIDDEN).arg("*").arg("alert").arg(alerts.nth(n)).ignore();
            }
            some.exec(&mut self.connection)?;
        }
        Ok(redis::cmd("XGROUP").arg("CREATE").arg(HIDDEN).arg(GROUP).arg("0").exec(&mut self.connection)?)
    }

    fn fire(&mut self) -> Result<()> {
        Ok(redis::cmd("RENAME").arg(HIDDEN).arg(STREAM).exec(&mut self.connection)?)
    }

    fn done(&mut self, count: u64) -> Result<bool> {
        Ok(self.length(STORE)? >= count || self.length(DEAD)? > 0)
    }

    fn tally(&mut self) -> Result<Tally> {
        Ok(Tally { stored: self.length(STORE)?, dead: self.length(DEAD)? })
    }

    fn records(&mut self) -> Result<BTreeMap<String, serde_json::Value>> {
        let mut command = redis::cmd("XRANGE");
        let entries: Vec<(String, Vec<String>)> =
            command.arg(STORE).arg("-").arg("+").arg("COUNT").arg(COMPARED).query(&mut self.connection)?;
        let record = |(_, fields): (String, Vec<String>)| {
            let record: serde_json::Value = serde_json::from_str(fields.last().context("an entry without a field")?)?;
            Ok((record["id"].as_str().unwrap_or_default().to_owned(), record))
        };
        entries.into_iter().map(record).collect()
    }

    fn server(&self) -> Option<u32> {
        self.server.pid()
    }

    fn sender(&self) -> Result<Box<dyn Sender>> {
        let url = self.server.url();
        let stream = UnixStream::connect(url.trim_start_matches("unix://"))?;
        let mut answers = stream.try_clone()?;
        // Nobody waits for the answers, but somebody must take them. Ends with the connection.
        std::thread::spawn(move || {
            let mut buffer = [0; 1 << 16];
            while answers.read(&mut buffer).is_ok_and(|length| length > 0) {}
        });
        Ok(Box::new(RedisSender(stream)))
    }

    fn watch(&self, count: Arc<AtomicU64>, patience: Duration) -> Result<JoinHandle<Result<Seen>>> {
        let mut connection = self.server.connection()?;
        Ok(std::thread::spawn(move || {
            let (mut seen, mut last, began) = (Vec::new(), "0".to_owned(), Instant::now());
            while (seen.len() as u64) < count.load(Ordering::Relaxed) && began.elapsed() < patience {
                let mut command = redis::cmd("XREAD");
                command.arg("COUNT").arg(1000).arg("BLOCK").arg(200).arg("STREAMS").arg(STORE).arg(&last);
                let reply: Value = command.query(&mut connection)?;
                let now = Instant::now();
                if reply == Value::Nil {
                    continue;
                }
                let streams: Vec<(String, Entries)> = redis::from_redis_value(reply)?;
                for (entry, fields) in streams.into_iter().flat_map(|(_, entries)| entries) {
                    let record = fields.last().context("an entry without a field")?;
                    seen.push((Alerts::number(record).context("a record without a number")?, now));
                    last = entry;
                }
            }
            Ok(seen)
        }))
    }
}

/// What a stream gives: ids, each with its fields.
type Entries = Vec<(String, Vec<Vec<u8>>)>;

struct RedisSender(UnixStream);

impl Sender for RedisSender {
    fn send(&mut self, alerts: &[Vec<u8>]) -> Result<()> {
        let mut some = redis::pipe();
        for alert in alerts {
            some.cmd("XADD").arg(STREAM).arg("*").arg("alert").arg(alert);
        }
        Ok(self.0.write_all(&some.get_packed_pipeline())?)
    }
}
