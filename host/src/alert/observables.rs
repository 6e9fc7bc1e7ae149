//! What can be looked up in an alert: addresses, hosts, users, domains, URLs, hashes, each with its role. Found once, by
//! JSON pointers, so that plugins need not know whose format the alert has.
//!
//! The built-in pointers cover flat field names, Suricata EVE
//! (<https://docs.suricata.io/en/latest/output/eve/eve-json-format.html>), the Elastic Common Schema, nested and with dotted
//! keys (<https://www.elastic.co/docs/reference/ecs>), and OCSF (<https://schema.ocsf.io/>).

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;
use serde::Serialize;

use crate::config::ObservableConfig;
use crate::json::document::{Document, Part};

/// Something in an alert that can be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Observable {
    /// What it is: `ip`, `host`, `user`, `domain`, `url`, `hash`, or a word from the configuration or a plugin.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its part in the alert: `source`, `destination`, `observer`, `subject`, `related`, or another word.
    pub role: String,
    /// The value, as the alert writes it.
    pub value: String,
}

/// How many observables one alert may have: an alert may hold a million addresses, and every step looks at all of them.
pub const MAX_OBSERVABLES: usize = 256;

/// The longest value, in bytes; longer ones are left out.
const MAX_VALUE: usize = 4096;

/// Type, role and pointers of what is looked for in every alert.
const BUILT_IN: &[(&str, &str, &[&str])] = &[
    (
        "ip",
        "source",
        &[
            "/src_ip",
            "/source_ip",
            "/srcip",
            "/sourceip",
            "/src",
            "/source/ip",
            "/source.ip",
            "/client/ip",
            "/client.ip",
            "/src_endpoint/ip",
        ],
    ),
    (
        "ip",
        "destination",
        &[
            "/dest_ip",
            "/dst_ip",
            "/destination_ip",
            "/dstip",
            "/destip",
            "/dst",
            "/destination/ip",
            "/destination.ip",
            "/server/ip",
            "/server.ip",
            "/dst_endpoint/ip",
        ],
    ),
    ("ip", "subject", &["/ip", "/host/ip", "/host.ip", "/device/ip"]),
    ("ip", "observer", &["/observer/ip", "/observer.ip"]),
    ("ip", "related", &["/related/ip", "/related.ip", "/evidences/*/src_endpoint/ip", "/evidences/*/dst_endpoint/ip"]),
    ("host", "source", &["/src_host", "/source/domain", "/source.domain", "/src_endpoint/hostname"]),
    (
        "host",
        "destination",
        &["/dest_host", "/dst_host", "/destination/domain", "/destination.domain", "/dst_endpoint/hostname"],
    ),
    ("host", "subject", &["/hostname", "/host", "/host/name", "/host.name", "/host/hostname", "/device/hostname"]),
    ("host", "observer", &["/observer/hostname", "/observer.hostname"]),
    ("host", "related", &["/related/hosts", "/related.hosts"]),
    ("user", "subject", &["/user", "/username", "/user_name", "/user/name", "/user.name", "/actor/user/name"]),
    ("user", "source", &["/source/user/name", "/source.user.name", "/src_user"]),
    ("user", "destination", &["/destination/user/name", "/destination.user.name", "/dst_user"]),
    ("user", "related", &["/related/user", "/related.user"]),
    (
        "domain",
        "destination",
        &[
            "/domain",
            "/dns/rrname",
            "/dns/query/*/rrname",
            "/dns/queries/*/rrname",
            "/dns/question/name",
            "/dns.question.name",
            "/tls/sni",
            "/url/domain",
            "/url.domain",
            "/query/hostname",
        ],
    ),
    ("url", "destination", &["/url", "/url/full", "/url.full", "/url/original", "/http_request/url/url_string"]),
    (
        "hash",
        "subject",
        &[
            "/hash",
            "/md5",
            "/sha1",
            "/sha256",
            "/file/hash/md5",
            "/file/hash/sha1",
            "/file/hash/sha256",
            "/file.hash.md5",
            "/file.hash.sha1",
            "/file.hash.sha256",
            "/process/hash/md5",
            "/process/hash/sha1",
            "/process/hash/sha256",
            "/process.hash.sha256",
            "/file/hashes/*/value",
            "/fileinfo/md5",
            "/fileinfo/sha1",
            "/fileinfo/sha256",
        ],
    ),
    ("hash", "related", &["/related/hash", "/related.hash"]),
];

/// What OCSF's observable type ids mean here (<https://schema.ocsf.io/1.5.0/objects/observable>).
fn ocsf_kind(type_id: u64) -> Option<&'static str> {
    match type_id {
        1 => Some("host"),
        2 => Some("ip"),
        4 => Some("user"),
        6 => Some("url"),
        8 => Some("hash"),
        _ => None,
    }
}

/// Finds observables.
#[derive(Debug)]
pub struct Finder {
    places: Vec<Place>,
    /// The places' pointers as a tree, so that an alert is walked once and only where something may be; the first one is its root.
    branches: Vec<Branch>,
}

/// What is looked for.
#[derive(Debug)]
struct Place {
    kind: String,
    role: String,
}

/// Where pointers that begin alike have come to.
#[derive(Debug, Default)]
struct Branch {
    /// The places that are reached here.
    places: Vec<usize>,
    /// Where they go on in an object, by key.
    keys: HashMap<String, usize, FxBuildHasher>,
    /// Where they go on in every element of an array.
    every: Option<usize>,
    /// Where they go on in one element of an array.
    elements: Vec<(usize, usize)>,
}

impl Finder {
    /// A finder that looks at these places first, then at the built-in ones.
    pub fn new(own: &[ObservableConfig]) -> Self {
        let mut finder = Self { places: Vec::new(), branches: vec![Branch::default()] };
        for place in own {
            finder.add(&place.pointer, &place.kind, &place.role);
        }
        for (kind, role, pointers) in BUILT_IN {
            pointers.iter().for_each(|pointer| finder.add(pointer, kind, role));
        }
        finder
    }

    fn add(&mut self, pointer: &str, kind: &str, role: &str) {
        let mut at = 0;
        for segment in pointer.split('/').skip(1) {
            let key = segment.replace("~1", "/").replace("~0", "~");
            at = match self.branches[at].keys.get(&key) {
                Some(next) => *next,
                None => {
                    let next = self.branches.len();
                    self.branches.push(Branch::default());
                    let branch = &mut self.branches[at];
                    branch.every = if key == "*" { Some(next) } else { branch.every };
                    branch.elements.extend(key.parse().map(|element: usize| (element, next)));
                    branch.keys.insert(key, next);
                    next
                }
            };
        }
        self.branches[at].places.push(self.places.len());
        self.places.push(Place { kind: kind.to_owned(), role: role.to_owned() });
    }

    /// What is found in an alert: each type and value once, under the role that was found first; at most
    /// [`MAX_OBSERVABLES`].
    pub fn find(&self, alert: &Document) -> Vec<Observable> {
        let mut hits = Vec::with_capacity(16);
        self.walk(0, alert.root(), &mut Vec::with_capacity(16), &mut hits);
        // In the order of the places; what is found at one of them stays in the alert's order.
        hits.sort_by_key(|(place, _)| *place);
        let mut found = Vec::new();
        for (place, value) in hits {
            let Place { kind, role } = &self.places[place];
            add(&mut found, kind, role, value);
        }
        for observable in alert.root().get("observables").and_then(Part::elements).into_iter().flatten() {
            if let (Some(kind), Some(value)) =
                (observable.get("type_id").and_then(Part::as_u64).and_then(ocsf_kind), observable.get("value"))
            {
                add(&mut found, kind, "related", value);
            }
        }
        found
    }

    /// Notes every value at a pointer, from a branch on. `ahead` is where it still has to go; whoever calls owns what is in it
    /// already.
    fn walk<'a>(
        &self,
        at: usize,
        value: Part<'a>,
        ahead: &mut Vec<(usize, Part<'a>)>,
        hits: &mut Vec<(usize, Part<'a>)>,
    ) {
        let branch = &self.branches[at];
        hits.extend(branch.places.iter().map(|place| (*place, value)));
        let begin = ahead.len();
        if let Some(entries) = value.entries().filter(|_| !branch.keys.is_empty()) {
            for (key, inner) in entries {
                let Some(next) = branch.keys.get(key) else { continue };
                // Of a key that stands there twice the last one counts.
                match ahead[begin..].iter_mut().find(|(known, _)| known == next) {
                    Some(known) => known.1 = inner,
                    None => ahead.push((*next, inner)),
                }
            }
        } else if let Some(elements) =
            value.elements().filter(|_| branch.every.is_some() || !branch.elements.is_empty())
        {
            for (place, inner) in elements.enumerate() {
                ahead.extend(branch.every.map(|next| (next, inner)));
                let named = branch.elements.iter().filter(|(element, _)| *element == place);
                ahead.extend(named.map(|(_, next)| (*next, inner)));
            }
        }
        for step in begin..ahead.len() {
            let (next, inner) = ahead[step];
            self.walk(next, inner, ahead, hits);
        }
        ahead.truncate(begin);
    }
}

fn add(found: &mut Vec<Observable>, kind: &str, role: &str, value: Part<'_>) {
    if let Some(elements) = value.elements() {
        elements.filter_map(Part::as_str).for_each(|text| add_text(found, kind, role, text));
    } else if let Some(text) = value.as_str() {
        add_text(found, kind, role, text);
    }
}

fn add_text(found: &mut Vec<Observable>, kind: &str, role: &str, text: &str) {
    let value = text.trim();
    let fits = !value.is_empty() && value.len() <= MAX_VALUE && found.len() < MAX_OBSERVABLES;
    // A field that is called after an address may hold anything.
    let plausible = kind != "ip" || value.parse::<std::net::IpAddr>().is_ok();
    if fits && plausible && !found.iter().any(|other| other.kind == kind && other.value == value) {
        found.push(Observable { kind: kind.to_owned(), role: role.to_owned(), value: value.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Document {
        Document::read(text, usize::MAX).unwrap()
    }

    fn found(alert: Value) -> Vec<String> {
        let found = Finder::new(&[]).find(&read(&alert.to_string()));
        found.into_iter().map(|it| format!("{} {} {}", it.kind, it.role, it.value)).collect()
    }

    #[test]
    fn flat_field_names_are_covered() {
        let alert = json!({"src_ip": "185.220.101.1", "dst_ip": "10.0.0.1", "hostname": "dc01", "user": "eve"});
        assert_eq!(
            found(alert),
            ["ip source 185.220.101.1", "ip destination 10.0.0.1", "host subject dc01", "user subject eve"]
        );
    }

    #[test]
    fn suricata_eve_is_covered() {
        let alert = json!({
            "event_type": "alert", "src_ip": "1.2.3.4", "dest_ip": "fe80::1", "host": "sensor-1",
            "dns": {"query": [{"rrname": "evil.example"}]}, "tls": {"sni": "sni.example"},
        });
        assert_eq!(
            found(alert),
            [
                "ip source 1.2.3.4",
                "ip destination fe80::1",
                "host subject sensor-1",
                "domain destination evil.example",
                "domain destination sni.example"
            ]
        );
    }

    #[test]
    fn ecs_is_covered_nested_and_dotted() {
        let nested = json!({"source": {"ip": "1.2.3.4"}, "host": {"name": "dc01", "ip": ["10.0.0.1", "10.0.0.2"]}});
        assert_eq!(
            found(nested),
            ["ip source 1.2.3.4", "ip subject 10.0.0.1", "ip subject 10.0.0.2", "host subject dc01"]
        );
        let dotted = json!({"source.ip": "1.2.3.4", "host.name": "dc01", "url.full": "http://evil.example/x"});
        assert_eq!(found(dotted), ["ip source 1.2.3.4", "host subject dc01", "url destination http://evil.example/x"]);
    }

    #[test]
    fn ocsf_is_covered() {
        let alert = json!({
            "src_endpoint": {"ip": "1.2.3.4"}, "dst_endpoint": {"ip": "10.0.0.1", "hostname": "dc01"},
            "actor": {"user": {"name": "eve"}},
            "observables": [{"name": "file.hash", "type_id": 8, "value": "abc"}, {"name": "n", "type_id": 99, "value": "x"}],
        });
        assert_eq!(
            found(alert),
            [
                "ip source 1.2.3.4",
                "ip destination 10.0.0.1",
                "host destination dc01",
                "user subject eve",
                "hash related abc"
            ]
        );
    }

    #[test]
    fn what_is_no_address_is_no_ip() {
        assert_eq!(found(json!({"src_ip": "unknown", "src": "1.2.3.4 "})), ["ip source 1.2.3.4"]);
    }

    #[test]
    fn an_alert_with_a_million_addresses_has_bounded_observables() {
        let many: Vec<_> = (0..100_000).map(|n| format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255)).collect();
        assert_eq!(found(json!({"related": {"ip": many}})).len(), MAX_OBSERVABLES);
    }

    #[test]
    fn own_places_come_first() {
        let own = [ObservableConfig { pointer: "/x/*/a~1b".into(), kind: "ip".into(), role: "attacker".into() }];
        let found = Finder::new(&own).find(&read(r#"{"src_ip": "1.2.3.4", "x": [{"a/b": "1.2.3.4"}]}"#));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].role, "attacker");
    }

    #[test]
    fn elements_are_named_by_place_or_all_together_and_keys_may_look_like_either() {
        let place = |pointer: &str, role: &str| ObservableConfig {
            pointer: pointer.into(),
            kind: "n".into(),
            role: role.into(),
        };
        let own = [place("/x/1", "second"), place("/x/*", "any"), place("/x/01", "odd"), place("/y/*/z", "deep")];
        let finder = Finder::new(&own);
        let found = |text: &str| -> Vec<String> {
            finder.find(&read(text)).into_iter().map(|it| format!("{} {}", it.role, it.value)).collect()
        };
        assert_eq!(found(r#"{"x": ["a", "b", "c"]}"#), ["second b", "any a", "any c"]);
        assert_eq!(found(r#"{"x": {"*": "a", "1": "b", "01": "c", "2": "d"}}"#), ["second b", "any a", "odd c"]);
        assert_eq!(found(r#"{"y": [{"z": "a"}, 7, {"z": ["b", {}]}], "x": "w"}"#), ["deep a", "deep b"]);
    }

    #[test]
    fn of_a_key_that_stands_there_twice_the_last_one_counts() {
        let found = Finder::new(&[])
            .find(&read(r#"{"src_ip": "1.1.1.1", "source": {"ip": "3.3.3.3"}, "src_ip": "2.2.2.2", "source": 1}"#));
        assert_eq!(found.iter().map(|it| it.value.as_str()).collect::<Vec<_>>(), ["2.2.2.2"]);
    }
}
