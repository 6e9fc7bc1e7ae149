//! The other end of the admin address: asks a running host on this machine how it is.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Ready;

/// How long the host may take, and how much it may say, in bytes.
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST: u64 = 1 << 20;

/// What the host that listens there says of itself. None when nobody listens, or something else does.
pub async fn ask(address: SocketAddr) -> Option<Ready> {
    let answer = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.take(LONGEST).read_to_string(&mut answer).await.ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    };
    tokio::time::timeout(PATIENCE, answer).await.ok()?
}
