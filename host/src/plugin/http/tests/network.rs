//! Names that change their address, and TLS.

use std::net::IpAddr;
use std::sync::Mutex;

use futures_util::FutureExt as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::Certificate;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::super::address::Lookup;
use super::*;

/// A name server that gives one answer after the other, and the last one from then on.
fn changing(answers: &[&[&str]]) -> (Lookup, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let answers: Vec<Vec<SocketAddr>> = answers
        .iter()
        .map(|answer| answer.iter().map(|address| (address.parse::<IpAddr>().unwrap(), 0).into()).collect())
        .collect();
    let counted = Arc::clone(&count);
    let lookup = move |_| {
        let at = counted.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let answer = answers[at].clone();
        async move { Ok(answer) }.boxed()
    };
    (Arc::new(lookup), count)
}

fn with(config: &HttpConfig, resolver: Resolver, roots: &[Certificate]) -> Http {
    let api = Api::with("api", config, resolver, roots, None, Arc::default()).unwrap();
    Http { apis: [("api".to_owned(), Arc::new(api))].into(), shared: None, telemetry: Arc::default() }
}

#[tokio::test]
async fn a_name_is_resolved_once_and_the_connection_goes_to_that_address() {
    let (address, count) = counting_server(Duration::ZERO, ok).await;
    // The server listens on 127.0.0.1 only: a second look-up would lead elsewhere.
    let (lookup, lookups) = changing(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let url = format!("http://changes.example:{}/", address.port());
    let http = with(&config(&url), Resolver::with(true, lookup), &[]);
    let response = send(&http, get(&url)).await.unwrap();
    assert!(String::from_utf8(response.body).unwrap().contains("host: changes.example:"));
    assert_eq!((lookups.load(Ordering::SeqCst), count.load(Ordering::SeqCst)), (1, 1));
    assert!(matches!(send(&http, get(&url)).await, Err(HttpError::Unreachable(_))), "the next one asks anew");
}

#[tokio::test]
async fn a_name_server_that_changes_its_answer_to_loopback_gains_nothing() {
    let (address, count) = counting_server(Duration::ZERO, |_| ok("inside")).await;
    let url = format!("http://rebinds.example:{}/", address.port());
    let refusing = HttpConfig { private: false, ..config(&url) };
    // Nobody has the first address; it is a public one, and the connection goes there or nowhere.
    let (lookup, lookups) = changing(&[&["223.255.255.254"], &["127.0.0.1"]]);
    let http = with(&refusing, Resolver::with(false, lookup), &[]);
    let first = send_within(&http, get(&url), Duration::from_millis(500)).await;
    assert!(matches!(first, Err(HttpError::Timeout | HttpError::Unreachable(_))), "{first:?}");
    assert_eq!(lookups.load(Ordering::SeqCst), 1, "checked and connected to by one look-up");
    assert_denied(send(&http, get(&url)).await, "127.0.0.1 is private, local or reserved");
    assert_eq!((lookups.load(Ordering::SeqCst), count.load(Ordering::SeqCst)), (2, 0));
    // A private address among public ones is left out, and not the fallback for them.
    let (lookup, _) = changing(&[&["127.0.0.1", "223.255.255.254", "::ffff:127.0.0.1"]]);
    let http = with(&refusing, Resolver::with(false, lookup), &[]);
    let mixed = send_within(&http, get(&url), Duration::from_millis(500)).await;
    assert!(matches!(mixed, Err(HttpError::Timeout | HttpError::Unreachable(_))), "{mixed:?}");
    for metadata in ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"] {
        let (lookup, _) = changing(&[&[metadata]]);
        let http = with(&refusing, Resolver::with(false, lookup), &[]);
        assert_denied(send(&http, get(&url)).await, "is private, local or reserved");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_that_may_lead_inside_never_leads_to_metadata_or_the_link() {
    let url = "http://inside.example/";
    let granted = HttpConfig { private: true, ..config(url) };
    for metadata in ["169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200", "64:ff9b::a9fe:a9fe"] {
        let (lookup, _) = changing(&[&[metadata]]);
        let http = with(&granted, Resolver::with(true, lookup), &[]);
        assert_denied(send(&http, get(url)).await, "write the address itself into the url of [http.api]");
    }
}

#[tokio::test]
async fn what_is_not_the_granted_place_is_refused_however_it_is_written() {
    let (address, count) = counting_server(Duration::ZERO, |_| ok("")).await;
    let port = address.port();
    let http = http(config(&format!("http://localhost:{port}/api/")));
    for url in [
        // Another port, another host before or after the granted one, a host in the path.
        format!("http://localhost:{}/api/", port.wrapping_add(1)),
        "http://localhost/api/".to_owned(),
        format!("http://127.0.0.1:{port}/api/"),
        format!("http://localhost.:{port}/api/"),
        format!("http://localhost:{port}.evil.example/api/"),
        format!("http://evil.example/http://localhost:{port}/api/"),
        format!("http://localhost:{port}//evil.example/api/"),
        format!("http://localhost:{port}/http://evil.example/"),
    ] {
        let result = send(&http, get(&url)).await;
        assert!(matches!(result, Err(HttpError::Denied(_) | HttpError::Invalid(_))), "{url}: {result:?}");
    }
    for url in [
        format!("http://localhost:{port}@evil.example/api/"),
        format!("http://user@localhost:{port}/api/"),
        format!("http://:pass@localhost:{port}/api/"),
        format!("localhost:{port}/api/"),
        format!("//localhost:{port}/api/"),
        "file:///etc/passwd".to_owned(),
        "http://".to_owned(),
        "http://localhost:99999/api/".to_owned(),
    ] {
        let result = send(&http, get(&url)).await;
        assert!(matches!(result, Err(HttpError::Invalid(_))), "{url}: {result:?}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

/// A TLS server with a certificate of a root of its own; gives the root, and what it saw.
async fn tls_server(name: &str) -> (SocketAddr, Certificate, Arc<Mutex<Vec<String>>>) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &root).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\n") && stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
            saw.lock().unwrap().push(String::from_utf8(bytes).unwrap());
            let _ = stream.write_all(ok("over TLS").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (address, Certificate::from_der(root.der()).unwrap(), seen)
}

#[tokio::test]
async fn an_https_answer_comes_from_who_the_root_vouches_for_and_nobody_else() {
    let (address, root, seen) = tls_server("localhost").await;
    let (_, other_root, _) = tls_server("localhost").await;
    let url = format!("https://localhost:{}/", address.port());
    let resolver = || Resolver::new(true);
    let http = with(&config(&url), resolver(), std::slice::from_ref(&root));
    assert_eq!(send(&http, get(&url)).await.unwrap().body, b"over TLS");
    assert!(seen.lock().unwrap()[0].contains("key: s3cret-s3cret\r\n"));
    // A root that did not sign it, and a name that it is not for: no request, and so no credential, gets there.
    let http = with(&config(&url), resolver(), &[other_root]);
    assert!(matches!(send(&http, get(&url)).await, Err(HttpError::Unreachable(why)) if why.contains("certificate")));
    let other = url.replace("localhost", "127.0.0.1");
    let http = with(&config(&other), resolver(), &[root]);
    assert!(matches!(send(&http, get(&other)).await, Err(HttpError::Unreachable(why)) if why.contains("certificate")));
    assert_eq!(seen.lock().unwrap().len(), 1);
}
