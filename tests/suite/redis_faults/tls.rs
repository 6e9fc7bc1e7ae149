//! TLS with a private CA and client certificates, and a user who may do what dossier needs and nothing else.

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
