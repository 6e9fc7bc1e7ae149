//! A network between a host and its server that can be bad: connections are reset, packets vanish, or another server is behind
//! the same address all at once.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;

/// A listener that passes everything on to a unix socket.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<PathBuf>,
    open: Mutex<Vec<Arc<Line>>>,
    made: AtomicU64,
    ended: AtomicBool,
}

/// One connection.
#[derive(Debug)]
struct Line {
    client: TcpStream,
    server: UnixStream,
    /// What comes is taken and thrown away.
    vanishes: AtomicBool,
}

impl Proxy {
    /// Listens on a free port.
    ///
    /// # Errors
    /// There is none.
    pub fn to(target: &Path) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let shared = Arc::new(Shared {
            target: Mutex::new(target.to_owned()),
            open: Mutex::default(),
            made: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let proxy = Self { address: listener.local_addr()?, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.ended.load(Ordering::Acquire) {
                    return;
                }
                shared.accept(client);
            }
        });
        Ok(proxy)
    }

    /// What a host connects to.
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// How many connections were made until now.
    pub fn made(&self) -> u64 {
        self.shared.made.load(Ordering::Acquire)
    }

    /// Resets every connection, as a router that was restarted does; gives how many.
    pub fn reset(&self) -> usize {
        let open = std::mem::take(&mut *self.shared.open.lock().expect("no test panics while it holds this"));
        for line in &open {
            // Without lingering a close is a reset; it is closed when both directions have ended, which this makes them do.
            let _ = socket2::SockRef::from(&line.client).set_linger(Some(Duration::ZERO));
            line.vanishes.store(true, Ordering::Release);
            let _ = line.client.shutdown(Shutdown::Read);
            let _ = line.server.shutdown(Shutdown::Both);
        }
        open.len()
    }

    /// From now on nothing of the connections that there are comes through, in either direction; they stay open.
    pub fn swallow(&self) {
        for line in self.shared.open.lock().expect("no test panics while it holds this").iter() {
            line.vanishes.store(true, Ordering::Release);
        }
    }

    /// Leads new connections to another server.
    pub fn lead_to(&self, target: &Path) {
        target.clone_into(&mut self.shared.target.lock().expect("no test panics while it holds this"));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.reset();
        // Wakes the listener up, so that its thread ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Begins a connection; one whose server is not there is closed.
    fn accept(&self, client: TcpStream) {
        let target = self.target.lock().expect("no test panics while it holds this").clone();
        let Ok(server) = UnixStream::connect(target) else { return };
        let Ok(line) = Line::new(client, server) else { return };
        self.made.fetch_add(1, Ordering::AcqRel);
        self.open.lock().expect("no test panics while it holds this").push(Arc::clone(&line));
        let other = Arc::clone(&line);
        std::thread::spawn(move || other.pass(&other.client, &other.server));
        std::thread::spawn(move || line.pass(&line.server, &line.client));
    }
}

impl Line {
    fn new(client: TcpStream, server: UnixStream) -> Result<Arc<Self>> {
        client.set_nodelay(true)?;
        Ok(Arc::new(Self { client, server, vanishes: AtomicBool::new(false) }))
    }

    /// Passes bytes on until one side ends.
    fn pass<'a, F, T>(&'a self, mut from: &'a F, mut to: &'a T)
    where
        &'a F: Read,
        &'a T: Write,
    {
        let mut bytes = vec![0; 64 << 10];
        loop {
            match from.read(&mut bytes) {
                Ok(count) if count > 0 => {
                    if !self.vanishes.load(Ordering::Acquire) && to.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
        // An end vanishes as everything else does.
        if !self.vanishes.load(Ordering::Acquire) {
            self.hang_up();
        }
    }

    fn hang_up(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}
