//! Where the server is: at an address, or where Sentinels or the nodes of a Cluster say.
//!
//! They are asked each time a connection is made, so a connection that is given up is the way to another server. One slot of a
//! Cluster holds all keys of a queue, so the one node that owns it is all that is talked to; there is no client of a Cluster here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    Pipeline, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, Value,
};

use super::reply;
use crate::config::RedisConfig;
use crate::queue::QueueError;

/// How long the network may swallow packets before the connection counts as dead.
const SILENCE: Duration = Duration::from_secs(8);

/// How long a Sentinel or a node has for saying where the server is, connecting included; then the next one is asked.
const ASK: Duration = Duration::from_secs(1);

/// The port of a Sentinel, where the URL says none.
const SENTINEL_PORT: u16 = 26379;

/// Where a server is, or who knows.
pub(super) struct Address {
    place: String,
    finder: Finder,
    /// Whom to ask first; another one each time, for one that is cut off from the others answers what was.
    turn: AtomicUsize,
}

enum Finder {
    Fixed(ConnectionInfo),
    /// `server` is how to connect to the server that they name.
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        service: String,
        server: ConnectionInfo,
    },
    /// `seeds` are those of the URL, `known` those that were heard of. The owner of this stream's slot is looked for.
    Cluster {
        seeds: Vec<ConnectionInfo>,
        known: Mutex<Vec<ConnectionInfo>>,
        stream: String,
    },
}

impl Address {
    /// Understands the URL of a configuration; reads the files of TLS.
    ///
    /// # Errors
    /// [`QueueError::Broken`] when the URL is none, which is not repeated, for it may hold a password; or a file cannot be read.
    pub(super) fn new(config: &RedisConfig) -> Result<Self, QueueError> {
        let certificates = certificates(config)?;
        let parse = |url: &str| -> Option<ConnectionInfo> {
            let info = url.into_connection_info().ok()?;
            let info = match (&certificates, info.addr()) {
                (Some(certificates), ConnectionAddr::TcpTls { .. }) => {
                    Client::build_with_tls(info, certificates.clone()).ok()?.get_connection_info().clone()
                }
                _ => info,
            };
            Some(info.set_tcp_settings(tcp()))
        };
        let made = match Several::of(&config.url) {
            None => parse(&config.url).map(|info| (info.addr().to_string(), Finder::Fixed(info))),
            Some(several) => several.finder(&config.stream, parse),
        };
        let (place, finder) = made.ok_or_else(|| {
            QueueError::Broken(
                "the url of [queue] is no Redis URL, or the files of ca, cert and key hold no certificates; write \
                 redis://[user:password@]host:port/db, rediss:// for TLS, unix:///path, \
                 redis+sentinel://host:port,host:port/service/db or redis+cluster://host:port,host:port"
                    .into(),
            )
        })?;
        Ok(Self { place, finder, turn: AtomicUsize::new(0) })
    }

    /// Where it is, for people; without a password.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Whether another server may be found when this one turns out to be the wrong one of a Cluster.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.finder, Finder::Cluster { .. })
    }

    /// Whether the server that was found must still show that it is the primary: a Sentinel may not know yet that it is not.
    pub(super) fn must_be_primary(&self) -> bool {
        matches!(self.finder, Finder::Sentinel { .. })
    }

    /// Says where to connect to now.
    ///
    /// # Errors
    /// Nobody who could say it can be asked, or nobody knows.
    pub(super) async fn find(&self) -> RedisResult<ConnectionInfo> {
        match &self.finder {
            Finder::Fixed(info) => Ok(info.clone()),
            Finder::Sentinel { sentinels, service, server } => {
                let mut question = redis::pipe();
                question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(service);
                let read = |_: &ConnectionInfo, answer| {
                    let [address] = reply::exactly(answer)?;
                    let [host, port] = reply::exactly(address)?;
                    Some(at(server, reply::text(host)?, reply::number(port)?.try_into().ok()?))
                };
                self.ask(sentinels, &question, read, "none of the Sentinels knows the service").await
            }
            Finder::Cluster { seeds, known, stream } => {
                let mut nodes = seeds.clone();
                nodes.extend(known.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
                let mut question = redis::pipe();
                question.cmd("CLUSTER").arg("KEYSLOT").arg(stream).cmd("CLUSTER").arg("SLOTS");
                let read = |asked: &ConnectionInfo, answer| {
                    let map = SlotMap::read(asked, answer)?;
                    *known.lock().unwrap_or_else(PoisonError::into_inner) = map.others(seeds);
                    map.owner
                };
                self.ask(&nodes, &question, read, "no node of the Cluster serves the stream's slot").await
            }
        }
    }

    /// Asks one after the other until one knows.
    async fn ask(
        &self,
        whom: &[ConnectionInfo],
        question: &Pipeline,
        read: impl Fn(&ConnectionInfo, Value) -> Option<ConnectionInfo>,
        nobody: &'static str,
    ) -> RedisResult<ConnectionInfo> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut trouble = RedisError::from((ErrorKind::Io, nobody));
        for place in 0..whom.len() {
            let info = &whom[(turn + place) % whom.len()];
            let config = AsyncConnectionConfig::new().set_connection_timeout(Some(ASK)).set_response_timeout(Some(ASK));
            let answer = async {
                let mut connection =
                    Client::open(info.clone())?.get_multiplexed_async_connection_with_config(&config).await?;
                question.query_async::<Vec<Value>>(&mut connection).await
            };
            match tokio::time::timeout(ASK, answer).await {
                Ok(Ok(answer)) => match read(info, Value::Array(answer)) {
                    Some(found) => return Ok(found),
                    None => trouble = (ErrorKind::Io, nobody).into(),
                },
                Ok(Err(error)) => trouble = error,
                Err(_) => trouble = std::io::Error::from(std::io::ErrorKind::TimedOut).into(),
            }
        }
        Err(trouble)
    }
}

/// Notices a dead connection, and does not wait to fill packets.
fn tcp() -> TcpSettings {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(4)).with_interval(Duration::from_secs(2)).with_retries(2);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(SILENCE);
    tcp
}

/// What TLS needs from files, if any is named.
fn certificates(config: &RedisConfig) -> Result<Option<TlsCertificates>, QueueError> {
    let read = |path: &Option<std::path::PathBuf>| match path {
        None => Ok(None),
        Some(path) => std::fs::read(path)
            .map(Some)
            .map_err(|error| QueueError::Broken(format!("{} of [queue] cannot be read: {error}", path.display()))),
    };
    let (root_cert, cert, key) = (read(&config.ca)?, read(&config.cert)?, read(&config.key)?);
    let client_tls = cert.zip(key).map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    Ok((root_cert.is_some() || client_tls.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
}

/// The same connection to another place.
fn at(like: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let addr = match like.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(addr)
}

/// A URL that names several hosts: `redis+sentinel://[user:password@]host[:port],…/service[/db][?…]` or
/// `redis+cluster://[user:password@]host[:port],…`; with `rediss` in place of `redis` over TLS.
#[derive(Debug, PartialEq, Eq)]
struct Several<'a> {
    scheme: &'static str,
    cluster: bool,
    /// `user:password@`, or nothing.
    user: &'a str,
    hosts: Vec<&'a str>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Several<'a> {
    /// Takes a URL apart; none when it names one server.
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (scheme, cluster) = match scheme {
            "redis+sentinel" => ("redis", false),
            "rediss+sentinel" => ("rediss", false),
            "redis+cluster" => ("redis", true),
            "rediss+cluster" => ("rediss", true),
            _ => return None,
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        Some(Self { scheme, cluster, user, hosts: hosts.split(',').collect(), path, query })
    }

    /// Who to ask, and the place for people; none when something is wrong.
    fn finder(&self, stream: &str, parse: impl Fn(&str) -> Option<ConnectionInfo>) -> Option<(String, Finder)> {
        let hosts = self.hosts.join(",");
        let one = |user: &str, host: &str, db: &str| parse(&format!("{}://{user}{host}/{db}", self.scheme));
        if self.cluster {
            if !self.path.is_empty() {
                return None;
            }
            let seeds = self.hosts.iter().map(|host| one(self.user, host, "")).collect::<Option<Vec<_>>>()?;
            let finder = Finder::Cluster { seeds, known: Mutex::default(), stream: stream.to_owned() };
            return Some((format!("the Cluster of {hosts}"), finder));
        }
        let (service, db) = self.path.split_once('/').unwrap_or((self.path, ""));
        if service.is_empty() {
            return None;
        }
        let server = one(self.user, self.hosts.first()?, db)?;
        let settings = self.sentinel_settings();
        let sentinel = |host: &&str| {
            let port = if has_port(host) { String::new() } else { format!(":{SENTINEL_PORT}") };
            Some(one("", &format!("{host}{port}"), "")?.set_redis_settings(settings.clone()))
        };
        let sentinels = self.hosts.iter().map(sentinel).collect::<Option<Vec<_>>>()?;
        let finder = Finder::Sentinel { sentinels, service: service.to_owned(), server };
        Some((format!("{service} of the Sentinels {hosts}"), finder))
    }

    /// The Sentinels' own credentials: `?sentinel_user=…&sentinel_password=…`.
    fn sentinel_settings(&self) -> RedisConnectionInfo {
        let mut settings = RedisConnectionInfo::default();
        for (name, value) in url::form_urlencoded::parse(self.query.as_bytes()) {
            settings = match &*name {
                "sentinel_user" => settings.set_username(value),
                "sentinel_password" => settings.set_password(value),
                _ => settings,
            };
        }
        settings
    }
}

/// Whether a host, an IPv6 address in brackets perhaps, has its port.
fn has_port(host: &str) -> bool {
    host.rsplit_once(']').map_or(host, |(_, rest)| rest).contains(':')
}

/// What a node says of the Cluster.
struct SlotMap {
    owner: Option<ConnectionInfo>,
    nodes: Vec<ConnectionInfo>,
}

impl SlotMap {
    /// Reads the answers to CLUSTER KEYSLOT and CLUSTER SLOTS.
    fn read(asked: &ConnectionInfo, answer: Value) -> Option<Self> {
        let [slot, ranges] = reply::exactly(answer)?;
        let slot = reply::number(slot)?;
        let mut map = Self { owner: None, nodes: Vec::new() };
        for range in reply::list(ranges)? {
            let mut parts = reply::list(range)?.into_iter();
            let (first, last) = (reply::number(parts.next()?)?, reply::number(parts.next()?)?);
            // The primary stands before its replicas.
            let nodes = parts.map(|part| node(asked, part)).collect::<Option<Vec<_>>>()?;
            if (first..=last).contains(&slot) {
                map.owner = nodes.first().cloned();
            }
            map.nodes.extend(nodes);
        }
        Some(map)
    }

    /// The nodes that are not named by the URL, each once.
    fn others(&self, seeds: &[ConnectionInfo]) -> Vec<ConnectionInfo> {
        let mut others: Vec<ConnectionInfo> = Vec::new();
        for node in &self.nodes {
            if !seeds.iter().chain(&others).any(|other| other.addr() == node.addr()) {
                others.push(node.clone());
            }
        }
        others
    }
}

/// A node of CLUSTER SLOTS. One that does not know its own address is where it was asked.
fn node(asked: &ConnectionInfo, part: Value) -> Option<ConnectionInfo> {
    let mut fields = reply::list(part)?.into_iter();
    let host = reply::text(fields.next()?).filter(|host| !host.is_empty());
    let host = match (host, asked.addr()) {
        (Some(host), _) => host,
        (None, ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. }) => host.clone(),
        (None, _) => return None,
    };
    Some(at(asked, host, reply::number(fields.next()?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str, stream: &str) -> Result<Address, QueueError> {
        let mut config = crate::config::Config::parse(std::path::Path::new("x"), "[queue]\nkind = \"redis\"").unwrap();
        let crate::config::QueueKind::Redis(redis) = &mut config.queue.kind else { panic!("it says redis") };
        (redis.url, redis.stream) = (url.to_owned(), stream.to_owned());
        Address::new(redis)
    }

    #[test]
    fn a_url_of_sentinels_has_hosts_service_database_and_two_kinds_of_credentials() {
        let url = "redis+sentinel://app:s3cret@a:1,b,[::1]:3/main/2?sentinel_user=s&sentinel_password=other%20s3cret";
        let address = address(url, "alerts").unwrap();
        assert!(!address.place().contains("s3cret"), "{}", address.place());
        let Finder::Sentinel { sentinels, service, server } = &address.finder else { panic!("no Sentinels") };
        let places: Vec<_> = sentinels.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!((places.len(), service.as_str()), (3, "main"));
        assert_eq!(places[..2], ["a:1", "b:26379"]);
        let server = server.redis_settings();
        assert_eq!((server.username(), server.password(), server.db()), (Some("app"), Some("s3cret"), 2));
        let sentinel = sentinels[1].redis_settings();
        assert_eq!((sentinel.username(), sentinel.password(), sentinel.db()), (Some("s"), Some("other s3cret"), 0));
    }

    #[test]
    fn a_url_that_lacks_what_it_needs_is_refused_without_its_password() {
        for url in [
            "redis+sentinel://:s3cret@a",
            "redis+sentinel://:s3cret@a/",
            "redis+sentinel://:s3cret@/main",
            "redis+sentinel://:s3cret@a/main/x",
            "redis+cluster://:s3cret@a/1",
            "redis+nothing://:s3cret@a",
            "http://:s3cret@a",
        ] {
            let Err(error) = address(url, "alerts") else { panic!("{url} is taken") };
            assert!(matches!(&error, QueueError::Broken(said) if !said.contains("s3cret")), "{error}");
        }
    }

    #[test]
    fn the_owner_of_a_slot_is_the_first_of_its_range_and_a_node_without_an_address_is_who_was_asked() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node =
            |host: &str, port| Value::Array(vec![text(host), Value::Int(port), text("id"), Value::Array(vec![])]);
        let range =
            |first, last, nodes: Vec<Value>| Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat());
        let ranges =
            vec![range(0, 99, vec![node("", 7), node("r", 8)]), range(100, 16383, vec![node("b", 9), node("r", 8)])];
        let asked = "redis://user:pass@a:1/".into_connection_info().unwrap();
        let map =
            |slot| SlotMap::read(&asked, Value::Array(vec![Value::Int(slot), Value::Array(ranges.clone())])).unwrap();
        for (slot, place) in [(0, "a:7"), (99, "a:7"), (100, "b:9"), (16383, "b:9")] {
            let owner = map(slot).owner.unwrap();
            assert_eq!((owner.addr().to_string().as_str(), owner.redis_settings().password()), (place, Some("pass")));
        }
        let others: Vec<_> =
            map(0).others(std::slice::from_ref(&asked)).iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(others, ["a:7", "r:8", "b:9"]);
    }
}
