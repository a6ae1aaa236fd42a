//! The windows on documents that one worker remembers, so that it can answer reads by itself.
//!
//! By the path they were asked for with, as it was sent: the same path is always the same document, and a
//! look needs neither decoding nor a copy of it. Which window is a document's is not for this side to know:
//! one that shows nothing is asked for again, by a message to the resource's actor.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use crate::resource::window::{Shown, Window};

/// Bytes that a worker spends on remembering; past that it forgets them all.
const BYTES_MAX: usize = 16 << 20;
/// What a remembered window costs besides its path: the table's entry, and the window itself in case that
/// nobody else keeps it any more.
const ENTRY_BYTES: usize = 256;

#[derive(Default)]
pub struct Windows {
    by_path: RefCell<HashMap<Box<str>, Arc<Window>>>,
    bytes: Cell<usize>,
}

impl Windows {
    /// What `see` makes of the document at this path, if a window on it is known and shows something.
    pub fn look<T>(&self, path: &str, see: impl FnOnce(&Window, &Shown) -> T) -> Option<T> {
        let by_path = self.by_path.borrow();
        let window = by_path.get(path)?;
        window.look(|shown| see(window, shown))
    }

    pub fn remember(&self, path: &str, window: Arc<Window>) {
        let mut by_path = self.by_path.borrow_mut();
        if let Some(remembered) = by_path.get_mut(path) {
            *remembered = window;
            return;
        }
        let mut bytes = self.bytes.get() + path.len() + ENTRY_BYTES;
        if bytes > BYTES_MAX {
            *by_path = HashMap::new();
            bytes = path.len() + ENTRY_BYTES;
        }
        self.bytes.set(bytes);
        by_path.insert(path.into(), window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Selector;
    use crate::resource::messages::Document;
    use crate::resource::window::Shutter;
    use crate::store::ResourceId;

    fn shows(windows: &Windows, path: &str) -> bool {
        windows.look(path, |_, _| ()).is_some()
    }

    fn shutter() -> Shutter {
        let shutter = Shutter::new(Selector::parse("s").unwrap(), 1);
        shutter.open(Document {
            id: "d".to_owned(),
            resource: ResourceId::new("r"),
            json: "1".into(),
        });
        shutter
    }

    #[test]
    fn a_later_window_takes_the_place_of_an_earlier_one() {
        let windows = Windows::default();
        let earlier = shutter();
        assert!(!shows(&windows, "/resource/r/s"));
        windows.remember("/resource/r/s", earlier.window());
        assert!(shows(&windows, "/resource/r/s"));
        drop(earlier);
        assert!(!shows(&windows, "/resource/r/s"));
        let later = shutter();
        windows.remember("/resource/r/s", later.window());
        assert!(shows(&windows, "/resource/r/s"));
    }

    #[test]
    fn a_worker_remembers_so_much_and_then_begins_anew() {
        let windows = Windows::default();
        let shutter = shutter();
        let path = "x".repeat(4096);
        for number in 0..10_000 {
            windows.remember(&format!("{path}{number}"), shutter.window());
            assert!(windows.bytes.get() <= BYTES_MAX);
        }
        assert!(shows(&windows, &format!("{path}9999")));
        assert!(!shows(&windows, &format!("{path}0")));
    }
}
