//! How much memory there is: what a container may have, where it is limited.

/// The limit of the control group that the process is in, in bytes; `None`: there is none.
pub(super) fn limit() -> Option<u64> {
    let places = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let texts = places
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok());
    texts.filter_map(|text| parse(&text)).min()
}

/// Version 1 writes a number near the largest there is for "none", version 2 a word.
fn parse(text: &str) -> Option<u64> {
    let bytes = text.trim().parse().ok()?;
    (bytes < 1 << 60).then_some(bytes)
}

/// A share of the memory that there may be, but no more than that.
pub(super) fn share(most: u64, divisor: u64, limit: Option<u64>) -> u64 {
    limit.map_or(most, |limit| most.min(limit / divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_and_not_the_largest_there_is() {
        assert_eq!(parse("268435456\n"), Some(256 << 20));
        assert_eq!(parse("max\n"), None);
        assert_eq!(parse("9223372036854771712\n"), None);
    }

    #[test]
    fn in_a_small_container_less_is_kept() {
        assert_eq!(share(256 << 20, 4, Some(256 << 20)), 64 << 20);
        assert_eq!(share(256 << 20, 4, Some(64 << 30)), 256 << 20);
        assert_eq!(share(256 << 20, 4, None), 256 << 20);
    }
}
