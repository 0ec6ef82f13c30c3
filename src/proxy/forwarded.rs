//! What trusted proxies in front of us say: where a request comes from, for logs and limits only, and whether it came to them by TLS, for the
//! links in answers. No decision about access looks here.

use std::net::IpAddr;

use http::HeaderMap;

use super::PeerAddress;
use crate::config::Network;

/// The address behind the trusted proxies: of `X-Forwarded-For`, the rightmost that is not one of theirs. The header of anybody
/// else is not read.
pub fn origin(peer: &PeerAddress, headers: &HeaderMap, trusted: &[Network]) -> PeerAddress {
    let PeerAddress::Tcp(socket) = peer else {
        return peer.clone();
    };
    if !is_trusted(socket.ip(), trusted) {
        return peer.clone();
    }
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let mut origin = *socket;
    for hop in hops.iter().rev() {
        let Ok(address) = hop.parse::<IpAddr>() else {
            break;
        };
        origin = (address, 0).into();
        if !is_trusted(address, trusted) {
            break;
        }
    }
    PeerAddress::Tcp(origin)
}

/// Whether the client's own connection, to the trusted proxy before us, is TLS (`X-Forwarded-Proto`).
pub fn by_tls(peer: &PeerAddress, headers: &HeaderMap, trusted: &[Network]) -> bool {
    let PeerAddress::Tcp(socket) = peer else { return false };
    if !is_trusted(socket.ip(), trusted) {
        return false;
    }
    let mut lines = headers.get_all("x-forwarded-proto").iter();
    let (Some(only), None) = (lines.next(), lines.next()) else { return false };
    only.as_bytes().eq_ignore_ascii_case(b"https")
}

fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = [Network { address: "10.0.0.0".parse().unwrap(), prefix: 8 }];
        let seen = |peer: &str, lines: &[&str]| {
            let headers =
                lines.iter().map(|&line| (http::HeaderName::from_static("x-forwarded-for"), line.parse().unwrap()));
            match origin(&PeerAddress::Tcp(format!("{peer}:5").parse().unwrap()), &headers.collect(), &trusted) {
                PeerAddress::Tcp(socket) => socket.ip().to_string(),
                PeerAddress::Unix { .. } => unreachable!(),
            }
        };
        assert_eq!(seen("192.0.2.1", &["203.0.113.7"]), "192.0.2.1");
        assert_eq!(seen("10.1.1.1", &["203.0.113.7"]), "203.0.113.7");
        assert_eq!(seen("10.1.1.1", &["198.51.100.9, 203.0.113.7", "10.2.2.2"]), "203.0.113.7");
        assert_eq!(seen("10.1.1.1", &["nonsense"]), "10.1.1.1");
        assert_eq!(seen("10.1.1.1", &[]), "10.1.1.1");
    }

    #[test]
    fn only_trusted_proxies_say_that_a_client_uses_tls() {
        let trusted = [Network { address: "10.0.0.0".parse().unwrap(), prefix: 8 }];
        let by_tls = |peer: &str, lines: &[&str]| {
            let name = http::HeaderName::from_static("x-forwarded-proto");
            let headers = lines.iter().map(|&line| (name.clone(), line.parse().unwrap())).collect();
            by_tls(&PeerAddress::Tcp(format!("{peer}:5").parse().unwrap()), &headers, &trusted)
        };
        assert!(by_tls("10.1.1.1", &["https"]) && by_tls("10.1.1.1", &["HTTPS"]));
        for lines in [&["http"][..], &["https, http"], &["https", "https"], &[]] {
            assert!(!by_tls("10.1.1.1", lines), "{lines:?}");
        }
        assert!(!by_tls("192.0.2.1", &["https"]));
    }
}
