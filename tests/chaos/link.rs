//! The network between an instance and its database: it can be cut, hung and slowed down. What is held
//! back is delivered later, as a network may.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    Up,
    /// Bytes stay where they are; connections stay open.
    Hung,
    /// Connections are reset, and new ones too.
    Down,
    /// Each piece takes this long.
    Slow(Duration),
}

pub struct Link {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    open: Mutex<Vec<TcpStream>>,
}

impl Link {
    pub fn to(host: String, port: u16) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State::Up),
            changed: Condvar::new(),
            open: Mutex::default(),
        });
        let control = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if *control.state.lock().unwrap() == State::Down {
                    continue;
                }
                let Ok(server) = TcpStream::connect((host.as_str(), port)) else {
                    continue;
                };
                connect(&control, client, server);
            }
        });
        Link { address, shared }
    }

    pub fn set(&self, state: State) {
        *self.shared.state.lock().unwrap() = state;
        if state == State::Down {
            for stream in self.shared.open.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        self.shared.changed.notify_all();
    }
}

fn connect(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let clone = |stream: &TcpStream| stream.try_clone().unwrap();
    let mut open = shared.open.lock().unwrap();
    open.extend([clone(&client), clone(&server)]);
    for (from, to) in [(clone(&client), clone(&server)), (server, client)] {
        let shared = shared.clone();
        std::thread::spawn(move || carry(&shared, from, to));
    }
}

fn carry(shared: &Shared, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let state = {
            let state = shared.state.lock().unwrap();
            *shared
                .changed
                .wait_while(state, |s| *s == State::Hung)
                .unwrap()
        };
        if let State::Slow(delay) = state {
            std::thread::sleep(delay);
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The end of a connection is held back as its bytes are.
    let state = shared.state.lock().unwrap();
    drop(
        shared
            .changed
            .wait_while(state, |s| *s == State::Hung)
            .unwrap(),
    );
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
