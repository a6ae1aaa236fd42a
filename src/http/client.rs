//! Whose request it is: the client's address behind trusted proxies.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{self, HeaderMap};
use ipnet::IpNet;

/// The peer, or, when the peer is a trusted proxy, the rightmost address in `X-Forwarded-For` (without
/// one: in `Forwarded`) that is not a trusted proxy itself. What stands left of it is only what the client
/// said. Where an entry is no address, the last trusted one counts.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut client = peer;
    if !is_trusted(&client) {
        return client;
    }
    for entry in hops(headers).into_iter().rev() {
        match entry {
            Some(address) => client = address,
            None => return client,
        }
        if !is_trusted(&client) {
            return client;
        }
    }
    client
}

/// The addresses that the request passed, the client's own first; `None` for an entry that is not one.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let forwarded_for = entries(headers, "x-forwarded-for");
    if !forwarded_for.is_empty() {
        return forwarded_for.iter().map(|entry| address(entry)).collect();
    }
    let forwarded = entries(headers, header::FORWARDED.as_str());
    forwarded
        .iter()
        .map(|entry| forwarded_for_of(entry))
        .collect()
}

/// All entries of a header that may be sent several times and lists entries with commas.
fn entries(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name);
    lines
        .flat_map(|line| {
            String::from_utf8_lossy(line.as_bytes())
                .into_owned()
                .split(',')
                .map(str::trim)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// `for=` of one element of `Forwarded` (RFC 7239).
fn forwarded_for_of(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    let (_, value) = named.next()?;
    address(value.trim().trim_matches('"'))
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let plain = bare.unwrap_or(text).parse::<IpAddr>();
    let address = plain.or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn client(peer: &str, lines: &[(&'static str, &'static str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let trusted = ["10.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap());
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client_whatever_it_says() {
        let lies = [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4")];
        assert_eq!(client("192.0.2.9", &lies), "192.0.2.9");
        assert_eq!(client("192.0.2.9", &[]), "192.0.2.9");
    }

    #[test]
    fn behind_trusted_proxies_the_rightmost_address_that_is_not_trusted_counts() {
        let xff = |value| client("10.0.0.1", &[("x-forwarded-for", value)]);
        assert_eq!(xff("192.0.2.9"), "192.0.2.9");
        assert_eq!(xff("6.6.6.6, 192.0.2.9, 10.0.0.2"), "192.0.2.9");
        assert_eq!(xff("192.0.2.9:4711"), "192.0.2.9");
        assert_eq!(xff("[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(xff("2001:db8::1"), "2001:db8::1");
        assert_eq!(xff("10.0.0.3"), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(
            client("::ffff:10.0.0.1", &[("x-forwarded-for", "192.0.2.9")]),
            "192.0.2.9"
        );
    }

    #[test]
    fn several_lines_are_read_as_one() {
        let lines = [
            ("x-forwarded-for", "6.6.6.6, 192.0.2.9"),
            ("x-forwarded-for", "10.0.0.2"),
        ];
        assert_eq!(client("10.0.0.1", &lines), "192.0.2.9");
    }

    #[test]
    fn an_entry_that_is_no_address_ends_the_search() {
        let xff = |value| client("10.0.0.1", &[("x-forwarded-for", value)]);
        assert_eq!(xff("192.0.2.9, unknown, 10.0.0.2"), "10.0.0.2");
        assert_eq!(xff("garbage"), "10.0.0.1");
        assert_eq!(xff(""), "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let forwarded = |value| client("10.0.0.1", &[("forwarded", value)]);
        assert_eq!(
            forwarded("for=192.0.2.9;proto=https;by=10.0.0.1"),
            "192.0.2.9"
        );
        assert_eq!(
            forwarded("proto=http; For=\"[2001:db8::1]:4711\""),
            "2001:db8::1"
        );
        assert_eq!(
            forwarded("for=6.6.6.6, for=192.0.2.9, for=10.0.0.2"),
            "192.0.2.9"
        );
        assert_eq!(forwarded("for=192.0.2.9, for=_hidden"), "10.0.0.1");
        assert_eq!(forwarded("proto=https"), "10.0.0.1");
    }
}
