//! The client's address, also behind proxies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_web::http::header::{self, HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client. That is the peer's address, or, if the peer is one of the `trusted` proxies, the
/// rightmost address in `X-Forwarded-For` (without that header: in `Forwarded`) that is not a trusted proxy.
/// The addresses left of it were written by the client itself or by a proxy of its choice.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer.to_canonical();
    if !is_trusted(nearest, trusted) {
        return nearest;
    }
    for hop in hops(headers).into_iter().rev() {
        // The entries left of an unreadable one cannot be trusted.
        let Some(address) = hop else {
            return nearest;
        };
        nearest = address;
        if !is_trusted(nearest, trusted) {
            return nearest;
        }
    }
    nearest
}

/// The addresses that proxies recorded, the client's own first; `None` for an unreadable one.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let listed = entries(headers, &X_FORWARDED_FOR);
    if !listed.is_empty() {
        return listed.into_iter().map(|hop| parse(hop?)).collect();
    }
    let forwarded = entries(headers, &header::FORWARDED);
    forwarded
        .into_iter()
        .map(|hop| forwarded_for(hop?))
        .collect()
}

/// The entries of a header that may be sent several times and separates entries by commas; `None` for a line
/// that is not text.
fn entries<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<Option<&'h str>> {
    let mut entries = Vec::new();
    for line in headers.get_all(name) {
        match line.to_str() {
            Ok(line) => entries.extend(line.split(',').map(|entry| Some(entry.trim()))),
            Err(_) => entries.push(None),
        }
    }
    entries
}

/// The `for=` address in one element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    parse(value.trim().trim_matches('"'))
}

pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// The address under which a client is rate limited: an IPv4 address, or the /64 network of an IPv6 address,
/// because a client that has one address of a /64 network has them all.
pub fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 => v4,
    }
}

/// Parses an address with or without a port; an IPv6 address may be in brackets.
fn parse(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let bare = bracketed.unwrap_or(text).parse::<IpAddr>();
    let address = bare.or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn seen(peer: &str, lines: &[&str]) -> String {
        seen_in("x-forwarded-for", peer, lines)
    }

    fn seen_in(header: &'static str, peer: &str, lines: &[&str]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                HeaderName::from_static(header),
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_peer_that_is_no_trusted_proxy_is_the_client_whatever_it_says() {
        assert_eq!(seen("192.0.2.1", &["203.0.113.9"]), "192.0.2.1");
        assert_eq!(seen("::ffff:192.0.2.1", &[]), "192.0.2.1");
    }

    #[test]
    fn behind_trusted_proxies_the_rightmost_other_address_is_the_client() {
        assert_eq!(seen("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.2.2.2"]),
            "203.0.113.9"
        );
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1", "203.0.113.9,10.2.2.2"]),
            "203.0.113.9"
        );
        assert_eq!(seen("fd00::1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(seen("10.0.0.1", &["203.0.113.9:1234"]), "203.0.113.9");
        assert_eq!(
            seen("::ffff:10.0.0.1", &["::ffff:203.0.113.9"]),
            "203.0.113.9"
        );
    }

    #[test]
    fn the_chain_is_believed_as_far_as_it_can_be_read() {
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["10.3.3.3"]), "10.3.3.3");
        assert_eq!(seen("10.0.0.1", &["203.0.113.9, unknown"]), "10.0.0.1");
        assert_eq!(
            seen("10.0.0.1", &["203.0.113.9, unknown, 10.3.3.3"]),
            "10.3.3.3"
        );
        assert_eq!(seen("10.0.0.1", &["", "10.3.3.3"]), "10.3.3.3");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let seen = |line| seen_in("forwarded", "10.0.0.1", &[line]);
        assert_eq!(seen("for=192.0.2.9;proto=https;by=10.0.0.1"), "192.0.2.9");
        assert_eq!(
            seen("proto=http; For=\"[2001:db8::1]:4711\""),
            "2001:db8::1"
        );
        assert_eq!(
            seen("for=6.6.6.6, for=192.0.2.9, for=10.0.0.2"),
            "192.0.2.9"
        );
        assert_eq!(seen("for=192.0.2.9, for=_hidden"), "10.0.0.1");
        assert_eq!(seen("proto=https"), "10.0.0.1");
        let lie = seen_in("forwarded", "192.0.2.1", &["for=203.0.113.9"]);
        assert_eq!(lie, "192.0.2.1");
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one_client() {
        let counted = |text: &str| counted_as(text.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("192.0.2.1"), "192.0.2.1");
        assert_eq!(counted("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
