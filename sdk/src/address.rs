//! IP addresses: reading them as alerts write them, and what kind of network they belong to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{Alert, Failure, log};

/// Where an address is valid, after IANA's special-purpose address registries
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>, <https://www.iana.org/assignments/iana-ipv6-special-registry>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Anywhere: the only scope that public databases know something about.
    Public,
    /// A private network (RFC 1918, unique local).
    Private,
    /// The machine itself.
    Loopback,
    /// One link.
    LinkLocal,
    /// Shared by a carrier's customers (100.64.0.0/10, RFC 6598).
    CarrierNat,
    /// A group, no machine.
    Multicast,
    /// Examples in documents.
    Documentation,
    /// Set aside for something else, or never assigned.
    Reserved,
}

/// The ranges that are not public; the first that holds the address wins.
const V4: [(Ipv4Addr, u32, Scope); 15] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8, Scope::Private),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Scope::Private),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Scope::Private),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Scope::Loopback),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Scope::LinkLocal),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Scope::CarrierNat),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Scope::Multicast),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Scope::Documentation),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Scope::Documentation),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Scope::Documentation),
    (Ipv4Addr::new(0, 0, 0, 0), 8, Scope::Reserved),
    (Ipv4Addr::new(192, 0, 0, 0), 24, Scope::Reserved),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Scope::Reserved),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Scope::Reserved),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Scope::Reserved),
];

/// As `V4`. Only 2000::/3 and the NAT64 prefix were ever given out for public use; the rest is reserved.
const V6: [(Ipv6Addr, u32, Scope); 10] = [
    (Ipv6Addr::LOCALHOST, 128, Scope::Loopback),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Scope::Private),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, Scope::Private),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Scope::LinkLocal),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Scope::Multicast),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Scope::Documentation),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, Scope::Documentation),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Scope::Reserved),
    (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3, Scope::Public),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, Scope::Public),
];

impl Scope {
    /// The scope of an address; one that is mapped from IPv4 has the scope of that.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => V4
                .iter()
                .find(|(network, length, _)| (address.to_bits() ^ network.to_bits()) >> (32 - length) == 0)
                .map_or(Self::Public, |range| range.2),
            IpAddr::V6(address) => V6
                .iter()
                .find(|(network, length, _)| (address.to_bits() ^ network.to_bits()) >> (128 - length) == 0)
                .map_or(Self::Reserved, |range| range.2),
        }
    }
}

/// The address in a text: plain, in brackets, or with a zone; mapped addresses become IPv4. None when it is no address.
#[must_use]
pub fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_start_matches('[').trim_end_matches(']');
    let text = text.split_once('%').map_or(text, |(address, _zone)| address);
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// One address of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The address in its canonical form: what tables are asked for.
    pub text: String,
    /// The roles in which the alert names it, each once.
    pub roles: Vec<String>,
    /// Where it is valid.
    pub scope: Scope,
}

/// An alert's addresses, each once, in the order of its observables: those among its `ip`
/// observables. Values that are no address are passed over, with a debug line.
///
/// # Errors
/// [`Failure::NotApplicable`] when there is none.
pub fn addresses(alert: &Alert<'_>) -> Result<Vec<Found>, Failure> {
    let mut addresses: Vec<Found> = Vec::new();
    for observable in alert.observables_of("ip") {
        let (address, text) = match observable.value.parse::<Ipv4Addr>() {
            // There is one way to write an IPv4 address that is read as one: this is it.
            Ok(address) => (IpAddr::V4(address), observable.value),
            Err(_) => {
                let Some(address) = parse_address(&observable.value) else {
                    log::debug(&format!("no address: {:?}", observable.value));
                    continue;
                };
                (address, address.to_string())
            }
        };
        match addresses.iter_mut().find(|found| found.text == text) {
            Some(found) if found.roles.contains(&observable.role) => {}
            Some(found) => found.roles.push(observable.role),
            None => addresses.push(Found { text, roles: vec![observable.role], scope: Scope::of(address) }),
        }
    }
    if addresses.is_empty() { Err(Failure::not_applicable("no address in the alert")) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        Scope::of(parse_address(text).unwrap())
    }

    #[test]
    fn ranges_end_where_they_end() {
        for (inside, outside, expected) in [
            ("10.255.255.255", "11.0.0.0", Scope::Private),
            ("172.31.255.255", "172.32.0.0", Scope::Private),
            ("192.168.55.199", "192.169.0.0", Scope::Private),
            ("100.127.255.255", "100.128.0.0", Scope::CarrierNat),
            ("169.254.169.254", "169.255.0.0", Scope::LinkLocal),
            ("203.0.113.255", "203.0.114.0", Scope::Documentation),
            ("239.1.1.1", "223.255.255.255", Scope::Multicast),
            ("198.19.255.255", "198.20.0.0", Scope::Reserved),
            ("127.0.0.2", "128.0.0.1", Scope::Loopback),
            ("2001:db8::1", "2001:db9::1", Scope::Documentation),
            ("2001:1ff::1", "2001:200::1", Scope::Reserved),
        ] {
            assert_eq!(scope(inside), expected, "{inside}");
            assert_eq!(scope(outside), Scope::Public, "{outside}");
        }
    }

    #[test]
    fn special_addresses_are_not_public() {
        assert_eq!(scope("255.255.255.255"), Scope::Reserved);
        assert_eq!(scope("0.0.0.0"), Scope::Reserved);
        assert_eq!(scope("::"), Scope::Reserved);
        assert_eq!(scope("::1"), Scope::Loopback);
        assert_eq!(scope("fd00::1"), Scope::Private);
        assert_eq!(scope("fe80::1%eth0"), Scope::LinkLocal);
        assert_eq!(scope("[ff02::1]"), Scope::Multicast);
        assert_eq!(scope("::ffff:192.168.0.1"), Scope::Private);
        assert_eq!(scope("::ffff:8.8.8.8"), Scope::Public);
        assert_eq!(scope("4000::1"), Scope::Reserved);
        assert_eq!(scope("64:ff9b::808:808"), Scope::Public);
    }

    #[test]
    fn what_is_no_address_is_none() {
        assert_eq!(parse_address("dc01"), None);
        assert_eq!(parse_address("1.2.3.4:80"), None);
        assert_eq!(parse_address(""), None);
    }
}
