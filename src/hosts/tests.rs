use http::Request;

use super::*;

fn hosts() -> Hosts {
    let url = |text: &str| Url::parse(text).unwrap();
    Hosts::new(
        [&url("https://Graph.Example:8443"), &url("https://[fd00::1]")],
        &["alias.example".to_owned(), "10.0.0.5".to_owned()],
        [&url("https://graph.microsoft.com")],
    )
}

fn head(version: Version, target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().version(version).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn check(version: Version, target: &str, lines: &[&str]) -> Result<Option<String>, HostRefusal> {
    let headers: Vec<_> = lines.iter().map(|line| ("host", *line)).collect();
    hosts().check(&head(version, target, &headers)).map(|host| host.map(str::to_owned))
}

fn host(line: &str) -> Result<(), HostRefusal> {
    check(Version::HTTP_11, "/v1.0/me", &[line]).map(drop)
}

#[test]
fn our_names_pass_with_any_port_and_in_any_case() {
    for line in [
        "graph.example",
        "GRAPH.example:1",
        "alias.example:8443",
        "graph.microsoft.com",
        "localhost",
        "LocalHost:9",
        "127.0.0.1:8080",
        "127.255.3.4",
        "[::1]",
        "[::1]:8080",
        "[0:0:0:0:0:0:0:1]",
        "[fd00::1]:443",
        "[FD00:0::1]",
        "10.0.0.5",
    ] {
        assert_eq!(host(line), Ok(()), "{line}");
    }
}

#[test]
fn other_names_are_refused() {
    for line in [
        "localhost.evil.com",
        "127.0.0.1.nip.io",
        "0.0.0.0:8080",
        "evil.com:8080",
        "graph.microsoft.com.evil",
        "evilgraph.example",
        "graph.example.",
        "localhost.",
        "127.1",
        "0177.0.0.1",
        "2130706433",
        "128.0.0.1",
        "[::]",
        "[::ffff:127.0.0.1]",
    ] {
        assert_eq!(host(line), Err(HostRefusal::NotAllowed), "{line}");
    }
}

#[test]
fn malformed_hosts_are_refused() {
    for line in [
        "",
        ":8080",
        "localhost:99999",
        "localhost:+80",
        "localhost:80:80",
        "localhost:",
        "localhost, evil.com",
        "localhost evil",
        "user@localhost",
        "[fe80::1%25eth0]",
        "[::1",
        "[::1]evil",
        "::1",
        "localhost/x",
        "localhost\\evil",
        "%6cocalhost",
        "*",
    ] {
        assert_eq!(host(line), Err(HostRefusal::Malformed), "{line}");
    }
}

#[test]
fn one_host_in_http_1_1_and_perhaps_none_in_http_1_0() {
    assert_eq!(check(Version::HTTP_11, "/", &[]), Err(HostRefusal::Missing));
    assert_eq!(check(Version::HTTP_11, "http://localhost/", &[]), Err(HostRefusal::Missing));
    assert_eq!(check(Version::HTTP_10, "/", &[]), Ok(None));
    assert_eq!(check(Version::HTTP_10, "/", &["evil.com"]), Err(HostRefusal::NotAllowed));
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        assert_eq!(check(version, "/", &["localhost", "localhost"]), Err(HostRefusal::Doubled));
    }
}

#[test]
fn the_authority_of_a_target_counts_and_so_does_the_host_beside_it() {
    let absolute = |target: &str, line: &str| check(Version::HTTP_11, target, &[line]);
    assert_eq!(absolute("http://graph.microsoft.com/v1.0/me", "localhost"), Ok(Some("graph.microsoft.com".to_owned())));
    assert_eq!(absolute("http://169.254.169.254/x", "localhost"), Err(HostRefusal::NotAllowed));
    assert_eq!(absolute("http://localhost/x", "evil.com"), Err(HostRefusal::NotAllowed));
    assert_eq!(absolute("http://graph.microsoft.com@evil/x", "localhost"), Err(HostRefusal::Malformed));
    assert_eq!(check(Version::HTTP_10, "http://evil.com/", &[]), Err(HostRefusal::NotAllowed));
}

#[test]
fn http_2_names_its_host_in_the_authority() {
    let h2 = |target: &str, lines: &[&str]| check(Version::HTTP_2, target, lines);
    assert_eq!(h2("http://localhost:80/", &[]), Ok(Some("localhost".to_owned())));
    assert_eq!(h2("http://localhost/", &["localhost"]), Ok(Some("localhost".to_owned())));
    assert_eq!(h2("http://localhost/", &["alias.example"]), Err(HostRefusal::Malformed));
    assert_eq!(h2("http://evil.com/", &[]), Err(HostRefusal::NotAllowed));
    assert_eq!(h2("/", &[]), Err(HostRefusal::Missing));
}

#[test]
fn pages_of_other_origins_are_told_from_ours() {
    let cross = |headers: &[(&str, &str)]| {
        let mut all = vec![("host", "127.0.0.1:8080")];
        all.extend_from_slice(headers);
        hosts().cross_site(&head(Version::HTTP_11, "/v1.0/me", &all), false)
    };
    for headers in [
        &[("origin", "null")][..],
        &[("origin", "https://evil.com")],
        &[("origin", "https://graph.example")],
        &[("origin", "https://graph.example:8443.evil.com")],
        &[("origin", "http://localhost:3000")],
        &[("origin", "http://127.0.0.1:8081")],
        &[("origin", "https://graph.example:8443"), ("origin", "https://graph.example:8443")],
        &[("origin", "https://graph.example:8443"), ("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "whatever")],
    ] {
        assert!(cross(headers), "{headers:?}");
    }
    for headers in [
        &[][..],
        &[("origin", "https://graph.example:8443")],
        &[("origin", "http://127.0.0.1:8080")],
        &[("sec-fetch-site", "none")],
        &[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:8080")],
    ] {
        assert!(!cross(headers), "{headers:?}");
    }
}

#[test]
fn a_preflight_is_cross_site_whatever_its_origin() {
    let mut preflight = head(
        Version::HTTP_11,
        "/v1.0/me",
        &[
            ("host", "localhost"),
            ("origin", "http://localhost"),
            ("access-control-request-method", "GET"),
            ("access-control-request-private-network", "true"),
        ],
    );
    preflight.method = Method::OPTIONS;
    assert!(hosts().cross_site(&preflight, false));
}

#[test]
fn plain_pages_are_foreign_to_a_tls_listener() {
    let parts = head(Version::HTTP_11, "/", &[("host", "localhost"), ("origin", "http://localhost")]);
    assert!(hosts().cross_site(&parts, true));
    assert!(!hosts().cross_site(&parts, false));
}

#[test]
fn only_following_a_link_is_a_navigation() {
    let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    let mut parts = head(Version::HTTP_11, "/.bearerd/callback/entra", &link);
    assert!(is_navigation(&parts));
    parts.method = Method::POST;
    assert!(!is_navigation(&parts));
    let frame = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
    assert!(!is_navigation(&head(Version::HTTP_11, "/", &frame)));
    assert!(!is_navigation(&head(Version::HTTP_11, "/", &[])));
}
