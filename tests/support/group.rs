//! A control group, which is what limits the memory of a container.

use std::path::{Path, PathBuf};

use super::skip;

/// Removed when dropped, after the processes in it.
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// `None`: skipped, none can be made here.
    pub fn limited_to(bytes: u64) -> Option<ControlGroup> {
        let name = format!("test-{}", uuid::Uuid::new_v4().simple());
        // Versions 1 and 2.
        for (root, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let path = Path::new(root).join(&name);
            if !Path::new(root).join("cgroup.procs").exists() || std::fs::create_dir(&path).is_err()
            {
                continue;
            }
            let group = ControlGroup(path);
            if std::fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                return Some(group);
            }
        }
        skip("no control group with a memory limit can be made here");
        None
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
