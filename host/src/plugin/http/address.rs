//! Which addresses may be reached. A name is resolved once and the connection goes to what was checked, so that a name
//! server that changes its answer gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use url::{Host, Url};

/// Look-ups at once. One that hangs holds a thread until the system gives up, even after its request did.
const LOOKUPS: usize = 4;

/// An address that may not be reached.
#[derive(Debug, thiserror::Error)]
#[error("{address} is private, local or reserved")]
pub(super) struct Refused {
    address: IpAddr,
}

impl Refused {
    /// How it could be reached, if that is meant.
    pub(super) fn remedy(&self, name: &str) -> String {
        if is_internal(self.address) {
            format!("add private = true to [http.{name}] if that is meant")
        } else {
            format!("if that is meant, write the address itself into the url of [http.{name}], with private = true")
        }
    }
}

/// Checks a host that is an address already; those are never resolved.
pub(super) fn check_literal(url: &Url, private: bool) -> Result<(), Refused> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    if private || is_public(address) { Ok(()) } else { Err(Refused { address }) }
}

/// What finds the addresses of a name: the system, but for tests.
pub(super) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Resolves names and leaves out what may not be reached.
pub(super) struct Resolver {
    private: bool,
    lookups: Arc<Semaphore>,
    lookup: Lookup,
}

impl Resolver {
    /// Resolves by the system's means.
    pub(super) fn new(private: bool) -> Self {
        let lookup = |name: String| async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }.boxed();
        Self::with(private, Arc::new(lookup))
    }

    /// Resolves by other means.
    pub(super) fn with(private: bool, lookup: Lookup) -> Self {
        Self { private, lookups: Arc::new(Semaphore::new(LOOKUPS)), lookup }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let private = self.private;
        let lookups = Arc::clone(&self.lookups);
        let lookup = Arc::clone(&self.lookup);
        Box::pin(async move {
            let permit = lookups.acquire_owned().await?;
            // In a task of its own, so that the permit lives as long as the system's look-up does.
            let lookup = tokio::spawn(async move {
                let _permit = permit;
                lookup(name.as_str().to_owned()).await
            });
            let mut addresses = lookup.await??;
            let first = addresses.first().map(SocketAddr::ip);
            // A name may lead inside where that was granted, but never to what only answers on the machine's own link: there
            // metadata services hand out credentials. Whoever means one names its address.
            addresses.retain(|address| is_public(address.ip()) || (private && is_internal(address.ip())));
            match first {
                Some(address) if addresses.is_empty() => Err(Refused { address }.into()),
                _ => Ok(Box::new(addresses.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether an address is one that anybody on the Internet may have, after the registries of IANA
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry/>, <https://www.iana.org/assignments/iana-ipv6-special-registry/>).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Whether an address is one of somebody's own network or of this machine, where services are: no link-local, reserved or metadata
/// address.
fn is_internal(address: IpAddr) -> bool {
    let v4 = |address: Ipv4Addr| {
        let shared = matches!(address.octets(), [100, 64..128, ..]) && address != Ipv4Addr::new(100, 100, 100, 200);
        address.is_private() || address.is_loopback() || shared
    };
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => v4(address),
            None => {
                let metadata = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
                address.is_loopback() || (address.is_unique_local() && address != metadata)
            }
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || matches!(
            (a, b, c),
            (0, ..) | (100, 64..128, _) | (192, 0, 0) | (192, 88, 99) | (198, 18..20, _) | (224.., ..)
        )
        // Azure's metadata and DNS, which has no address of a private range.
        || address == Ipv4Addr::new(168, 63, 129, 16);
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = Ipv4Addr::from(u32::from(g) << 16 | u32::from(h));
    match (a, b) {
        // Mapped IPv4 (RFC 4291), and IPv4 behind a translator (RFC 6052): as good as the address within.
        (0, 0) if [c, d, e, f] == [0, 0, 0, 0xffff] => is_public_v4(embedded),
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => is_public_v4(embedded),
        // Protocol assignments with Teredo, documentation, 6to4: tunnels lead to IPv4 addresses unseen.
        (0x2001, 0..0x200 | 0xdb8) | (0x2002, _) | (0x3fff, 0..0x1000) => false,
        // Global unicast; everything else is local, multicast or not assigned.
        (0x2000..0x4000, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_public() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn private_local_reserved_and_metadata_addresses_are_not() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn what_is_internal_is_neither_public_nor_of_the_link() {
        for address in ["10.0.0.1", "127.0.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd12::1", "::ffff:10.0.0.1"] {
            let address = address.parse().unwrap();
            assert!(is_internal(address) && !is_public(address), "{address}");
        }
        for address in [
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "fe80::1",
            "::ffff:169.254.1.1",
            "0.0.0.0",
        ] {
            assert!(!is_internal(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn odd_spellings_of_an_address_are_checked_as_the_address() {
        for url in
            ["http://0x7f.1/", "http://2130706433/", "http://0177.0.0.1/", "http://127.1/", "http://[::ffff:7f00:1]/"]
        {
            let url = Url::parse(url).unwrap();
            assert!(check_literal(&url, false).is_err(), "{url}");
            assert!(check_literal(&url, true).is_ok(), "{url}");
        }
    }
}
