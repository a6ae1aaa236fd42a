//! A window on one document: what a resource's actor shows of it without being asked.
//!
//! A GET `lock=0` without a ticket changes nothing and waits for nobody, so it needs no turn in the actor's
//! mailbox. The first such read goes there all the same and brings the document's [`Window`] back; from then
//! on a worker that remembers the window looks through it, at the price of two atomic loads. A document that
//! nobody reads this way has no window.
//!
//! Why a look is as good as a message (linearizability):
//!
//! - **One writer.** Only the document's actor holds the [`Shutter`], so what a window shows changes in the
//!   order of the actor's steps.
//! - **Committed only.** The actor opens the shutter in a step in which the document's last write is known to
//!   be committed.
//! - **Never older than an answer.** It closes the shutter in the step that decides a write, or the deletion
//!   of document or resource: before the commit is sent, thus before its answer, or any other answer that
//!   rests on it, can leave. Until the commit is known to have succeeded, reads find the window closed and
//!   queue up in the mailbox, where answers wait for commits. So at the moment of a look that finds a
//!   document, that document is the current one: no later change was decided. That moment lies between the
//!   request and its answer.
//! - **Never a former actor's.** The shutter is a part of what the actor remembers and closes when that is
//!   dropped: on eviction, when the actor retires or is abandoned, and when it dies by a panic. A successor
//!   starts after that: one that retires tells the registry afterwards, and the mailbox of one that dies is
//!   dropped after its memory.
//! - **Never of another life of the store.** The one case in which a successor may be at work while the
//!   shutter is still open is a store that was in doubt or in other hands meanwhile. So the worker looks first,
//!   then asks the gate whether answers may leave, and then whether the incarnation is still the window's
//!   ([`Window::is_of`]). Whoever takes the store back raises the incarnation before it opens the gate, so
//!   that both together say that nobody else could have changed the document up to that moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use crate::lock::Selector;
use crate::resource::messages::Document;

/// Answers of up to this many bytes are kept: making one of them costs more than its bytes do.
const ANSWER_BYTES_KEPT: usize = 1024;

/// A document as a window shows it.
#[derive(Debug)]
pub struct Shown {
    pub document: Document,
    answer: OnceLock<Bytes>,
}

impl Shown {
    /// What `make` makes of the document. It must always come to the same, because a small one is kept, for as
    /// long as the document is shown.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn answer<E>(&self, make: impl FnOnce(&Document) -> Result<Bytes, E>) -> Result<Bytes, E> {
        if let Some(kept) = self.answer.get() {
            return Ok(kept.clone());
        }
        let made = make(&self.document)?;
        if made.len() <= ANSWER_BYTES_KEPT {
            // Somebody else may have been faster, with the same.
            let _ = self.answer.set(made.clone());
        }
        Ok(made)
    }
}

/// Read by any thread, written through its [`Shutter`].
#[derive(Debug)]
pub struct Window {
    pub selector: Selector,
    /// Of the store, as its actor knows it.
    incarnation: u64,
    shown: ArcSwapOption<Shown>,
    /// Somebody looked since the actor asked last. Set once and then left alone, so that readers on several
    /// threads share the cache line.
    looked: AtomicBool,
}

impl Window {
    /// What `see` makes of the document, if one is shown.
    pub fn look<T>(&self, see: impl FnOnce(&Shown) -> T) -> Option<T> {
        let shown = self.shown.load();
        let shown = shown.as_ref()?;
        if !self.looked.load(Ordering::Relaxed) {
            self.looked.store(true, Ordering::Relaxed);
        }
        Some(see(shown))
    }

    /// Whether what was seen counts while the store is in this incarnation.
    pub fn is_of(&self, incarnation: u64) -> bool {
        self.incarnation == incarnation
    }
}

/// Two are equal when they are the same one.
impl PartialEq for Window {
    fn eq(&self, other: &Window) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Window {}

/// The actor's side of a window; dropped, it closes it for good.
pub struct Shutter(Arc<Window>);

impl Shutter {
    /// Of a window that shows nothing yet.
    pub fn new(selector: Selector, incarnation: u64) -> Shutter {
        Shutter(Arc::new(Window {
            selector,
            incarnation,
            shown: ArcSwapOption::empty(),
            looked: AtomicBool::new(false),
        }))
    }

    pub fn window(&self) -> Arc<Window> {
        self.0.clone()
    }

    pub fn is_open(&self) -> bool {
        self.0.shown.load().is_some()
    }

    /// Shows a document that is committed.
    pub fn open(&self, document: Document) {
        self.0.shown.store(Some(Arc::new(Shown {
            document,
            answer: OnceLock::new(),
        })));
    }

    pub fn close(&self) {
        if self.is_open() {
            self.0.shown.store(None);
        }
    }

    /// Whether somebody looked since this was asked last.
    pub fn take_looked(&self) -> bool {
        self.0.looked.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Shutter {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::ResourceId;

    fn shutter() -> Shutter {
        Shutter::new(Selector::parse("s").unwrap(), 3)
    }

    fn document(json: Bytes) -> Document {
        Document {
            id: "d".to_owned(),
            resource: ResourceId::new("r"),
            json,
        }
    }

    #[test]
    fn a_window_shows_what_its_actor_opened_it_for() {
        let shutter = shutter();
        let window = shutter.window();
        assert_eq!(window.look(|_| ()), None);
        shutter.open(document(Bytes::from_static(b"1")));
        let json = window.look(|shown| shown.document.json.clone());
        assert_eq!(json.unwrap(), "1");
        shutter.close();
        assert_eq!(window.look(|_| ()), None);
        assert!(window.is_of(3) && !window.is_of(4));
    }

    #[test]
    fn a_small_answer_is_made_once_for_a_document_and_a_large_one_each_time() {
        let shutter = shutter();
        let window = shutter.window();
        let ask = |bytes: usize| {
            let mut made = false;
            let answer = window.look(|shown| {
                shown.answer(|document| {
                    made = true;
                    let byte = document.json.first().copied().ok_or("empty")?;
                    Ok::<_, &str>(Bytes::from(vec![byte; bytes]))
                })
            });
            (answer.unwrap(), made)
        };
        let small = || Ok(Bytes::from_static(b"11"));
        shutter.open(document(Bytes::from_static(b"1")));
        assert_eq!(ask(2), (small(), true));
        assert_eq!(ask(2), (small(), false));
        shutter.open(document(Bytes::from_static(b"2")));
        let (large, _) = ask(ANSWER_BYTES_KEPT + 1);
        assert_eq!(ask(ANSWER_BYTES_KEPT + 1), (large, true));
        assert_eq!(ask(2), (Ok(Bytes::from_static(b"22")), true));
        shutter.open(document(Bytes::new()));
        assert_eq!(ask(2), (Err("empty"), true));
    }

    #[test]
    fn a_window_without_its_actor_shows_nothing_and_keeps_no_memory() {
        let json = Bytes::from(vec![b'1'; 64]);
        let shutter = shutter();
        let window = shutter.window();
        shutter.open(document(json.clone()));
        drop(shutter);
        assert_eq!(window.look(|_| ()), None);
        assert!(json.is_unique());
    }

    #[test]
    fn a_look_is_a_sign_of_life_when_there_was_something_to_see() {
        let shutter = shutter();
        let window = shutter.window();
        assert_eq!(window.look(|_| ()), None);
        assert!(!shutter.take_looked());
        shutter.open(document(Bytes::from_static(b"1")));
        window.look(|_| ());
        assert!(shutter.take_looked());
        assert!(!shutter.take_looked());
    }
}
