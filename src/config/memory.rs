//! The memory limit of the container that the process is in, if there is one.

use std::path::{Path, PathBuf};

/// Where control groups are found, versions 2 and 1, and the file that holds a group's limit.
const PLACES: [(&str, &str); 2] = [
    ("/sys/fs/cgroup", "memory.max"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
];

/// The lowest memory limit of the process's control group and those above it, in bytes. `None`: there is no limit.
pub(super) fn limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let texts = files(&own)
        .into_iter()
        .filter_map(|file| std::fs::read_to_string(file).ok());
    texts.filter_map(|text| parse(&text)).min()
}

/// The limit files of each group in `own`, the text of `/proc/self/cgroup`, and of the groups above it. In a
/// container the root is the container's own group, whatever the text says.
fn files(own: &str) -> Vec<PathBuf> {
    let group = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let is_about_memory = controllers.split(',').any(|name| name == "memory");
        (controllers.is_empty() || is_about_memory).then(|| path.to_owned())
    };
    let groups: Vec<String> = own.lines().filter_map(group).collect();
    let mut files = Vec::new();
    for (root, name) in PLACES {
        files.push(Path::new(root).join(name));
        for group in &groups {
            let above = Path::new(group).ancestors();
            let relative = above.filter_map(|group| group.strip_prefix("/").ok());
            files.extend(relative.map(|group| Path::new(root).join(group).join(name)));
        }
    }
    files
}

/// The limit in bytes; `None`: no limit. For that, version 1 writes a number near the largest there is, version
/// 2 a word.
fn parse(text: &str) -> Option<u64> {
    let bytes = text.trim().parse().ok()?;
    (bytes < 1 << 60).then_some(bytes)
}

/// A quarter of the limit, but not above `most`; without a limit `most`. In bytes.
pub(super) fn share(most: u64, limit: Option<u64>) -> u64 {
    limit.map_or(most, |limit| most.min(limit / 4))
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
    fn every_group_that_the_process_is_in_counts() {
        let version2 = files("0::/system.slice/a.service\n");
        for file in [
            "/sys/fs/cgroup/memory.max",
            "/sys/fs/cgroup/system.slice/memory.max",
            "/sys/fs/cgroup/system.slice/a.service/memory.max",
        ] {
            assert!(version2.contains(&PathBuf::from(file)), "{version2:?}");
        }
        let version1 = files("5:cpu:/other\n4:memory:/docker/12\n");
        let file = "/sys/fs/cgroup/memory/docker/12/memory.limit_in_bytes";
        assert!(version1.contains(&PathBuf::from(file)), "{version1:?}");
        assert!(
            !version1
                .iter()
                .any(|file| file.ends_with("other/memory.max"))
        );
    }

    #[test]
    fn in_a_small_container_less_is_kept() {
        assert_eq!(share(256 << 20, Some(256 << 20)), 64 << 20);
        assert_eq!(share(256 << 20, Some(64 << 30)), 256 << 20);
        assert_eq!(share(256 << 20, None), 256 << 20);
    }
}
