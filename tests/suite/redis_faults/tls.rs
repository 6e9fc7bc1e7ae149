//! TLS with a private CA and client certificates; a user who may do what dossier needs and nothing else, and one who may not do that.

use dossier_tests::redis_server::free_port;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::*;

/// What the documentation says that dossier's user needs.
const RIGHTS: &str = "resetchannels -@all +xadd +xack +xdel +xgroup +xreadgroup +xpending +xclaim +xrange +xlen +xtrim +xinfo \
                      +evalsha +script|load +get +set +del +exists +pexpire +pttl +strlen +hget +hset +hdel +hincrby +time +info +type \
                      +role +cluster|keyslot +cluster|slots +zadd +zcard +zrange +zremrangebyscore";

/// A CA that can vouch for others.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes a certificate for this name and its key into a site.
    fn vouch(&self, site: &Site, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        site.write(&format!("{name}.pem"), certificate.pem().as_bytes());
        site.write(&format!("{name}.key"), key.serialize_pem().as_bytes());
    }
}

#[test]
fn a_server_with_tls_client_certificates_and_a_narrow_user_is_used_and_one_that_nobody_vouches_for_is_not() {
    let port = free_port().expect("a port").to_string();
    let url = format!("rediss://dossier:s3cret@localhost:{port}/0");
    let files = "ca = \"ca.pem\"\ncert = \"dossier.pem\"\nkey = \"dossier.key\"";
    let (site, strange, bare) = (site(&url, files), site(&url, files), site(&url, "ca = \"ca.pem\""));
    let authority = Authority::new();
    for place in [&site, &strange, &bare] {
        authority.vouch(place, "dossier");
        place.write("ca.pem", authority.pem.as_bytes());
    }
    strange.write("ca.pem", Authority::new().pem.as_bytes());
    authority.vouch(&site, "localhost");
    let path = |name: &str| site.path(name).display().to_string();
    let user = format!("dossier on >s3cret ~alerts ~alerts:* {RIGHTS}");
    let user: Vec<_> = user.split_whitespace().collect();
    let (certificate, key, ca) = (path("localhost.pem"), path("localhost.key"), path("ca.pem"));
    let options = [
        &[
            "--tls-port",
            &port,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--user",
        ],
        &user[..],
    ];
    let server = RedisServer::with(&options.concat()).expect("redis-server starts");

    assert!(site.succeed(&["validate"]).contains("is fine"));
    let host = start(&site);
    let load = Load::on(&server);
    stored_more(&server, 100);
    server.ask::<String>(&["XADD", "alerts", "*", "alert", "{\"broken"]).expect("XADD");
    let confirmed = load.end();
    drained(&server);
    assert_stored_once(&server, "alerts:enriched", &confirmed);
    assert_eq!(said(&host, "queue trouble"), 0);
    // Every other command that needs the server: its user may do that, too.
    assert_eq!(site.status()["dead"], 1);
    site.send(b"{\"id\":\"sent\"}\n{\"id\":\"sent\"}\n");
    site.succeed(&["dlq", "replay", "--all"]);
    drained(&server);
    assert_eq!(length(&server, "alerts:dlq"), 1);
    // It ends with 1 where the duplicate was not counted.
    site.succeed(&["verify", "--input"]);
    assert_eq!(host.stop(), Some(0));

    for (place, word) in [(&strange, "certificate"), (&bare, "")] {
        let output = place.dossier(&["status"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(word) && !said.contains("s3cret"), "{said}");
    }
    let denied: Vec<String> = server
        .ask(&["ACL", "LOG"])
        .map(|log: Vec<redis::Value>| log.into_iter().map(|entry| format!("{entry:?}")).collect())
        .expect("ACL LOG");
    // What `validate` asks for and can do without.
    let denied: Vec<_> = denied.into_iter().filter(|entry| !entry.contains("config|get")).collect();
    assert!(denied.is_empty(), "{denied:?}");
}

#[test]
fn what_a_user_may_not_do_is_told_and_done_once_when_he_may_and_what_went_before_it_is_not_done_again() {
    // Streams, the lease and all else may be written, the index or the notes of who is dead only read.
    let no_index = ["resetkeys", "~alerts", "~alerts:[^i]*", "%R~alerts:id:*"];
    let no_notes = ["resetkeys", "~alerts", "~alerts:dlq", "~alerts:[^d]*", "%R~alerts:dead:*"];
    for (take, give, word) in [
        (&["-xack"][..], "+xack", "(XACK)"),
        (&["-xdel"], "+xdel", "(XDEL)"),
        // What was added could not be taken back, should the index refuse it.
        (&["-xdel", "(+xdel ~alerts)"], "+xdel", "(XDEL)"),
        (&no_index, "allkeys", "(SET)"),
        (&no_notes, "allkeys", "(SET)"),
    ] {
        let server = RedisServer::start().expect("redis-server starts");
        let site = site(&server.url(), "");
        let host = start(&site);
        let user = |rules: &[&str]| {
            server.ask::<()>(&[&["ACL", "SETUSER", "default"], rules].concat()).expect("ACL SETUSER");
        };
        stop_between_reads(&server, &host);
        user(take);
        let good = ids("good", 5);
        send(&server, good.iter().cloned());
        server.ask::<String>(&["XADD", "alerts", "*", "alert", "{\"broken"]).expect("XADD");
        host.signal(Signal::CONT);
        let trouble = line(&host, "queue trouble").to_string();
        assert!(trouble.contains(word), "{take:?}: {trouble}");
        until_ready(&host, false);
        // Tried again some times.
        std::thread::sleep(Duration::from_secs(3));
        let denied = metric(&host, "dossier_queue_troubles_total{operation=\"commit\"}");
        assert!(denied >= 3.0, "{take:?}: tried {denied} times");
        let (enriched, dead) = (stored(&server, "alerts:enriched"), length(&server, "alerts:dlq"));
        match take {
            // What cannot be let go of is not added, or a host that comes after this one would add it again.
            ["-xack"] | ["-xdel", ..] => {
                assert!(enriched.is_empty() && dead == 0, "{take:?}: {enriched:?}, {dead} dead")
            }
            _ => {
                assert!(enriched.values().all(|times| *times == 1) && dead <= 1, "{take:?}: {enriched:?}, {dead} dead")
            }
        }
        user(&[give]);
        drained(&server);
        until_ready(&host, true);
        assert_stored_once(&server, "alerts:enriched", &good);
        assert_eq!((length(&server, "alerts:dlq"), pending(&server)), (1, 0), "{take:?}");
        // What was added and taken back each time was added, as Redis counts.
        if word != "(SET)" {
            site.succeed(&["verify", "--input"]);
        }
        assert_eq!(host.stop(), Some(0));
    }
}
