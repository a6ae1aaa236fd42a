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
    let mut listed = None;
    while is_trusted(nearest, trusted) {
        let listed = listed.get_or_insert_with(|| hops(headers));
        // The entries left of an unreadable one cannot be trusted.
        let Some(Some(address)) = listed.pop() else {
            break;
        };
        nearest = address;
    }
    nearest
}

/// The addresses that proxies recorded, the client's own first; `None` for an unreadable one.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let listed = entries(headers, &X_FORWARDED_FOR);
    if listed.is_empty() {
        let forwarded = entries(headers, &header::FORWARDED);
        return forwarded.into_iter().map(forwarded_for).collect();
    }
    listed.into_iter().map(parse).collect()
}

/// The entries of a header that may be sent several times and separates entries by commas. A line that is not text is
/// an empty entry.
fn entries<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h str> {
    let lines = headers.get_all(name);
    let lines = lines.map(|line| line.to_str().unwrap_or_default());
    let entries = lines.flat_map(|line| line.split(','));
    entries.map(str::trim).collect()
}

/// The `for=` address in one element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    parse(value.trim().trim_matches('"'))
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
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
    use super::*;

    /// `lines`: those of the header, separated by `|`.
    fn seen(peer: &str, header: &'static str, lines: &str) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for line in lines.split('|') {
            headers.append(HeaderName::from_static(header), line.parse().unwrap());
        }
        address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxy() {
        for (listed, client) in [
            ("8.8.8.8", "8.8.8.8"),
            ("6.6.6.6, 8.8.8.8, 10.2.2.2", "8.8.8.8"),
            ("6.6.6.6|8.8.8.8,10.2.2.2", "8.8.8.8"),
            ("[2001:db8::7]:443, fd00::2", "2001:db8::7"),
            ("8.8.8.8:1234", "8.8.8.8"),
            ("::ffff:8.8.8.8", "8.8.8.8"),
            ("10.3.3.3", "10.3.3.3"),
            // The chain is believed as far as it can be read.
            ("", "10.0.0.1"),
            ("8.8.8.8, unknown", "10.0.0.1"),
            ("8.8.8.8, unknown, 10.3.3.3", "10.3.3.3"),
            ("|10.3.3.3", "10.3.3.3"),
        ] {
            for peer in ["10.0.0.1", "::ffff:10.0.0.1"] {
                assert_eq!(seen(peer, "x-forwarded-for", listed), client, "{listed}");
            }
        }
        for (listed, client) in [
            ("for=8.8.8.8;proto=https;by=10.0.0.1", "8.8.8.8"),
            ("proto=http; For=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=6.6.6.6, for=8.8.8.8, for=10.0.0.2", "8.8.8.8"),
            ("for=8.8.8.8, for=_hidden", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            assert_eq!(seen("10.0.0.1", "forwarded", listed), client, "{listed}");
        }
        // Any other peer may say what it wants.
        assert_eq!(
            seen("::ffff:8.8.8.8", "x-forwarded-for", "6.6.6.6"),
            "8.8.8.8"
        );
        assert_eq!(seen("8.8.8.8", "forwarded", "for=6.6.6.6"), "8.8.8.8");
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one_client() {
        let counted = |text: &str| counted_as(text.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("192.0.2.1"), "192.0.2.1");
        assert_eq!(counted("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
