//! A link between client and server that loses answers, mixes them up, or is cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What becomes of the answers.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// Every second one is lost, and its connection with it.
    LosesAnswers,
    /// Every second one claims to belong to another request.
    MixesUp,
}

pub struct Link {
    pub url: String,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    /// How many answers came to harm.
    pub harmed: Arc<AtomicUsize>,
    answers: Arc<AtomicUsize>,
}

impl Link {
    pub fn to(server: &str, fault: Fault) -> Link {
        let address = server.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (cut, open, harmed) = <(
            Arc<AtomicBool>,
            Arc<Mutex<Vec<TcpStream>>>,
            Arc<AtomicUsize>,
        )>::default();
        let answers = Arc::new(AtomicUsize::new(0));
        let link = Link {
            answers: Arc::clone(&answers),
            url,
            cut: Arc::clone(&cut),
            open: Arc::clone(&open),
            harmed: Arc::clone(&harmed),
        };
        thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let server = TcpStream::connect(&address).unwrap();
                for stream in [&client, &server] {
                    open.lock().unwrap().push(stream.try_clone().unwrap());
                }
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || copy(from, to, |_| true));
                let (answers, harmed) = (Arc::clone(&answers), Arc::clone(&harmed));
                thread::spawn(move || {
                    copy(server, client, |bytes| {
                        pass(fault, bytes, &answers, &harmed)
                    })
                });
            }
        });
        link
    }

    /// How many answers have come.
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::SeqCst)
    }

    /// Ends every connection, and lets no new one through.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut pass: impl FnMut(&mut Vec<u8>) -> bool) {
    let mut buffer = [0; 1 << 16];
    while let Ok(size @ 1..) = from.read(&mut buffer) {
        let mut bytes = buffer[..size].to_vec();
        if !pass(&mut bytes) || to.write_all(&bytes).is_err() {
            break;
        }
    }
    for stream in [&from, &to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// May these bytes of the server pass, and what becomes of them? An answer is small enough to come as a whole.
fn pass(fault: Fault, bytes: &mut [u8], answers: &AtomicUsize, harmed: &AtomicUsize) -> bool {
    let is_answer = bytes.starts_with(b"HTTP/1.1 ");
    if !is_answer || answers.fetch_add(1, Ordering::SeqCst) % 2 == 1 || fault == Fault::None {
        return true;
    }
    harmed.fetch_add(1, Ordering::SeqCst);
    if fault == Fault::LosesAnswers {
        return false;
    }
    let name = b"x-request-id: ";
    let lower = bytes.to_ascii_lowercase();
    let at = lower
        .windows(name.len())
        .position(|window| window == name)
        .expect("an id")
        + name.len();
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    true
}
