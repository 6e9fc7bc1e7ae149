//! From keys to rows: addresses by longest prefix, everything else by exact text.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use hashbrown::HashTable;
use ipnet::{IpNet, Ipv4Net};
use prefix_trie::joint::JointPrefixMap;

/// Which row a key finds. Rows are known by where they start in [`super::rows::Rows`].
pub(super) struct Index {
    addresses: JointPrefixMap<IpNet, u32>,
    names: HashTable<Name>,
    /// The names in lower case, one after the other: an allocation for each would cost more than most names are long.
    text: String,
    /// Seeded anew for each table, so that nobody can make a file of names that collide.
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Name {
    start: u32,
    end: u32,
    row: u32,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            addresses: JointPrefixMap::new(),
            names: HashTable::new(),
            text: String::new(),
            hasher: RandomState::new(),
        }
    }

    /// Lets a key find a row, and says which row it found before. The caller keeps the whole below 4 GiB.
    pub(super) fn insert(&mut self, key: &str, row: u32) -> Option<u32> {
        if let Some(net) = address(key) {
            return self.addresses.insert(net, row);
        }
        let key = key.to_ascii_lowercase();
        let hash = self.hasher.hash_one(&key);
        let text = &mut self.text;
        if let Some(name) = self.names.find_mut(hash, |name| text[name.range()] == key) {
            return Some(std::mem::replace(&mut name.row, row));
        }
        let start = text.len();
        text.push_str(&key);
        let name = Name { start: start as u32, end: text.len() as u32, row };
        self.names.insert_unique(hash, name, |name| self.hasher.hash_one(&text[name.range()]));
        None
    }

    /// The row that a key finds.
    pub(super) fn find(&self, key: &str) -> Option<u32> {
        let key = key.trim();
        if let Some(net) = address(key) {
            return self.addresses.get_lpm(&net).map(|(_, row)| *row);
        }
        let key = key.to_ascii_lowercase();
        let hash = self.hasher.hash_one(&key);
        self.names.find(hash, |name| self.text[name.range()] == key).map(|name| name.row)
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        self.text.capacity()
            + self.names.allocation_size()
            + self.addresses.t1.mem_size()
            + self.addresses.t2.mem_size()
    }

    /// Gives back what was allocated in advance.
    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.names.shrink_to_fit(|name| self.hasher.hash_one(&self.text[name.range()]));
    }
}

impl Name {
    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The address or prefix that a key is, if it is one. IPv4 that is mapped into IPv6 (RFC 4291, section 2.5.5.2) is IPv4.
pub(super) fn address(key: &str) -> Option<IpNet> {
    // Host names and hashes are the many; what holds neither a colon nor begins with a digit is no address.
    if !key.starts_with(|first: char| first.is_ascii_hexdigit() || first == ':') {
        return None;
    }
    if let Ok(address) = key.parse::<IpAddr>() {
        return Some(IpNet::from(address.to_canonical()));
    }
    let net = key.parse::<IpNet>().ok()?;
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.network().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
    {
        return Ipv4Net::new(v4, length).ok().map(|net| IpNet::V4(net.trunc()));
    }
    Some(net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins_in_both_families() {
        let mut index = Index::new();
        for (row, key) in
            ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "2001:db8::/32", "2001:db8:1::/48"].iter().enumerate()
        {
            assert_eq!(index.insert(key, row as u32), None);
        }
        assert_eq!(index.find("10.9.9.9"), Some(0));
        assert_eq!(index.find("10.1.9.9"), Some(1));
        assert_eq!(index.find("10.1.2.3"), Some(2));
        assert_eq!(index.find(" 10.1.2.3 "), Some(2));
        assert_eq!(index.find("10.1.2.0/24"), Some(1), "a prefix finds what holds all of it");
        assert_eq!(index.find("2001:db8:2::1"), Some(3));
        assert_eq!(index.find("2001:DB8:1::1"), Some(4));
        assert_eq!(index.find("11.0.0.1"), None);
        assert_eq!(index.find("::a01:203"), None, "IPv4-compatible addresses are no IPv4 addresses");
    }

    #[test]
    fn ipv4_written_as_ipv6_is_ipv4() {
        let mut index = Index::new();
        index.insert("::ffff:10.0.0.0/104", 1);
        index.insert("::ffff:192.0.2.1", 2);
        index.insert("::/0", 3);
        assert_eq!(index.find("10.200.0.1"), Some(1));
        assert_eq!(index.find("192.0.2.1"), Some(2));
        assert_eq!(index.find("::ffff:10.200.0.1"), Some(1));
        assert_eq!(index.find("11.0.0.1"), None, "the default route of IPv6 holds no IPv4 address");
    }

    #[test]
    fn a_prefix_with_host_bits_is_the_network() {
        let mut index = Index::new();
        index.insert("10.1.2.3/8", 1);
        assert_eq!(index.insert("10.0.0.0/8", 2), Some(1));
        assert_eq!(index.find("10.0.0.1"), Some(2));
    }

    #[test]
    fn other_keys_match_exactly_but_for_ascii_case() {
        let mut index = Index::new();
        assert_eq!(index.insert("WEB-01.example", 1), None);
        assert_eq!(index.insert("web-01.EXAMPLE", 2), Some(1));
        assert_eq!(index.find("Web-01.Example"), Some(2));
        assert_eq!(index.find("web-01"), None);
        assert_eq!(index.find(""), None);
        assert_eq!(index.find("999.1.1.1"), None);
    }

    #[test]
    fn ten_thousand_names_are_all_found_after_shrinking() {
        let mut index = Index::new();
        for row in 0..10_000 {
            index.insert(&format!("host-{row}"), row);
        }
        index.shrink();
        assert!((0..10_000).all(|row| index.find(&format!("HOST-{row}")) == Some(row)));
        assert_eq!(index.find("host-10000"), None);
    }
}
