//! What can be looked up in an alert: addresses, hosts, users, domains, URLs, hashes, each with its role. Found once, by
//! JSON pointers, so that plugins need not know whose format the alert has.
//!
//! The built-in pointers cover flat field names, Suricata EVE
//! (<https://docs.suricata.io/en/latest/output/eve/eve-json-format.html>), the Elastic Common Schema, nested and with dotted
//! keys (<https://www.elastic.co/docs/reference/ecs>), and OCSF (<https://schema.ocsf.io/>).

use serde::Serialize;
use serde_json::Value;

use crate::config::ObservableConfig;

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
}

#[derive(Debug)]
struct Place {
    segments: Vec<String>,
    kind: String,
    role: String,
}

impl Place {
    fn new(pointer: &str, kind: &str, role: &str) -> Self {
        let unescape = |segment: &str| segment.replace("~1", "/").replace("~0", "~");
        Self {
            segments: pointer.split('/').skip(1).map(unescape).collect(),
            kind: kind.to_owned(),
            role: role.to_owned(),
        }
    }
}

impl Finder {
    /// A finder that looks at these places first, then at the built-in ones.
    pub fn new(own: &[ObservableConfig]) -> Self {
        let own = own.iter().map(|place| Place::new(&place.pointer, &place.kind, &place.role));
        let built_in = BUILT_IN
            .iter()
            .flat_map(|(kind, role, pointers)| pointers.iter().map(move |pointer| Place::new(pointer, kind, role)));
        Self { places: own.chain(built_in).collect() }
    }

    /// What is found in an alert: each type and value once, under the role that was found first; at most
    /// [`MAX_OBSERVABLES`].
    pub fn find(&self, alert: &Value) -> Vec<Observable> {
        let mut found = Vec::new();
        for place in &self.places {
            visit(alert, &place.segments, &mut |value| add(&mut found, &place.kind, &place.role, value));
        }
        for observable in alert.get("observables").and_then(Value::as_array).into_iter().flatten() {
            if let (Some(kind), Some(value)) =
                (observable.get("type_id").and_then(Value::as_u64).and_then(ocsf_kind), observable.get("value"))
            {
                add(&mut found, kind, "related", value);
            }
        }
        found
    }
}

/// Calls `each` with every value at a pointer; a `*` stands for every element of an array.
fn visit<'a>(value: &'a Value, segments: &[String], each: &mut impl FnMut(&'a Value)) {
    let Some((first, rest)) = segments.split_first() else { return each(value) };
    match value {
        Value::Object(object) => {
            if let Some(inner) = object.get(first) {
                visit(inner, rest, each);
            }
        }
        Value::Array(array) if first == "*" => array.iter().for_each(|inner| visit(inner, rest, each)),
        Value::Array(array) => {
            if let Some(inner) = first.parse::<usize>().ok().and_then(|index| array.get(index)) {
                visit(inner, rest, each);
            }
        }
        _ => {}
    }
}

fn add(found: &mut Vec<Observable>, kind: &str, role: &str, value: &Value) {
    match value {
        Value::Array(values) => {
            values.iter().filter(|value| value.is_string()).for_each(|value| add(found, kind, role, value))
        }
        Value::String(text) => {
            let value = text.trim();
            let fits = !value.is_empty() && value.len() <= MAX_VALUE && found.len() < MAX_OBSERVABLES;
            // A field that is called after an address may hold anything.
            let plausible = kind != "ip" || value.parse::<std::net::IpAddr>().is_ok();
            if fits && plausible && !found.iter().any(|other| other.kind == kind && other.value == value) {
                found.push(Observable { kind: kind.to_owned(), role: role.to_owned(), value: value.to_owned() });
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(alert: Value) -> Vec<String> {
        let found = Finder::new(&[]).find(&alert);
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
        let found = Finder::new(&own).find(&json!({"x": [{"a/b": "1.2.3.4"}], "src_ip": "1.2.3.4"}));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].role, "attacker");
    }
}
