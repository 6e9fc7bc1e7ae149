//! Whether a URL belongs to an interface.

use percent_encoding::percent_decode_str;
use url::Url;

/// How often a path is decoded when it is searched for `..`: some servers decode twice.
const DECODINGS: usize = 3;

/// Whether a URL has an interface's scheme, host and port, and lies under its path.
///
/// Both have been normalised by the parser, which resolved `..` in all its spellings; what a server might take for `..` after
/// it decoded the path is refused where an interface has a path.
pub(super) fn covers(base: &Url, url: &Url) -> bool {
    if base.scheme() != url.scheme()
        || base.host() != url.host()
        || base.port_or_known_default() != url.port_or_known_default()
    {
        return false;
    }
    let prefix = base.path().trim_end_matches('/');
    if prefix.is_empty() {
        return true;
    }
    let below = url.path().strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below && !climbs(url.path())
}

/// Whether a path holds a segment that some server reads as `..`.
fn climbs(path: &str) -> bool {
    let mut path = path.to_owned();
    for _ in 0..=DECODINGS {
        // Some servers cut a segment at `;`, some take a backslash for a slash.
        if path.split(['/', '\\']).any(|segment| segment.split(';').next() == Some("..")) {
            return true;
        }
        path = percent_decode_str(&path).decode_utf8_lossy().into_owned();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(base: &str, url: &str) -> bool {
        covers(&Url::parse(base).unwrap(), &Url::parse(url).unwrap())
    }

    #[test]
    fn scheme_host_and_port_must_be_the_same() {
        for url in ["https://api.example/", "https://API.example:443/x?y=https://other/", "https://api.example/a/../b"]
        {
            assert!(covered("https://api.example", url), "{url}");
        }
        for url in [
            "http://api.example/",
            "https://api.example:8443/",
            "https://api.example./",
            "https://api.example.evil/",
            "https://evil/api.example",
            "https://api.example@evil/",
            "https://sub.api.example/",
        ] {
            assert!(!covered("https://api.example", url), "{url}");
        }
        assert!(covered("http://127.0.0.1:80", "http://0x7f.1/"), "an odd spelling is the same address");
    }

    #[test]
    fn a_path_is_a_prefix_by_segments_and_cannot_be_climbed_out_of() {
        let base = "https://api.example/api/v2/";
        for path in ["api/v2", "api/v2/", "api/v2/check?ip=1", "api/v2/a%2Fb", "x/../api/v2/check", "api/v2/..a/b.."] {
            assert!(covered(base, &format!("https://api.example/{path}")), "{path}");
        }
        for path in [
            "",
            "api",
            "api/v22",
            "api/v2x/check",
            "API/v2/check",
            "api/v2/../../admin",
            "api/v2/..",
            "api/v2/%2e%2E/admin",
            "api/v2/..%2fadmin",
            "api/v2/..%5Cadmin",
            "api/v2/%252e%252e/admin",
            "api/v2/..%252fadmin",
            "api/v2/..;/admin",
            "api\\v2\\..\\..\\admin",
        ] {
            assert!(!covered(base, &format!("https://api.example/{path}")), "{path}");
        }
    }
}
