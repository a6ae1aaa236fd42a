//! The server as the binary builds it, in this process, on a free port.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use small_resource_server::app::App;
use small_resource_server::config::Settings;
use tokio::sync::oneshot;

use super::client::Client;
use super::program::Program;
use super::setup::{Setup, Store};

/// How long resources that nobody uses stay in memory: every test sees some leave it.
const RETIRE_MS: u64 = 200;

/// A running server, and its client. Dropped, it is stopped.
pub struct Server {
    client: Client,
    running: Option<Running>,
    setup: Setup,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Deref for Server {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Setup {
    /// Runs it in this process; it serves when this returns.
    pub fn serve(&self) -> Server {
        let server = self.clone().listen(&[]);
        server.until_ready();
        server
    }

    fn listen(self, given: &[(&str, &str)]) -> Server {
        let (address, running) = launch(self.clone().with_all(given));
        Server {
            client: Client::at(address),
            running: Some(running),
            setup: self,
        }
    }
}

impl Server {
    pub fn start(store: Store) -> Server {
        Server::start_with(store, &[])
    }

    pub fn start_with(store: Store, given: &[(&str, &str)]) -> Server {
        let server = Setup::on(store).listen(given);
        server.until_ready();
        server
    }

    /// Stops, and starts again on the same store: with these settings, and without those given before.
    pub fn restart_with(&mut self, given: &[(&str, &str)]) {
        self.stop();
        self.start_again(given);
    }

    /// On the same store, after `stop`.
    pub fn start_again(&mut self, given: &[(&str, &str)]) {
        let (address, running) = launch(self.setup.clone().with_all(given));
        self.client = Client::at(address);
        self.running = Some(running);
        self.until_ready();
    }

    /// Another server on the same store. It may have to wait for the other one.
    pub fn start_beside(&self) -> Server {
        self.start_beside_with(&[])
    }

    /// As [`Server::start_beside`], with these settings.
    pub fn start_beside_with(&self, given: &[(&str, &str)]) -> Server {
        self.setup.clone().listen(given)
    }

    /// Stops, and goes on as the built program in a process of its own, which can be killed.
    pub fn restart_as_program(&mut self, given: &[(&str, &str)]) -> Program {
        self.stop();
        let program = self.setup.clone().with_all(given).start();
        self.client = Client::at(program.address());
        program
    }

    /// Asks the server to stop, without waiting until it has.
    pub fn begin_stop(&mut self) -> Option<JoinHandle<()>> {
        let running = self.running.take()?;
        let _ = running.stop.send(());
        Some(running.thread)
    }

    pub fn stop(&mut self) {
        let ended = self.begin_stop().map(JoinHandle::join);
        let panicked = matches!(ended, Some(Err(_)));
        assert!(!panicked || std::thread::panicking(), "the server panicked");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn launch(setup: Setup) -> (SocketAddr, Running) {
    let mut pairs = setup.settings();
    // What is read before the settings are.
    pairs.retain(|(name, _)| name != "CONFIG_FILE");
    let mut settings = Settings::from_pairs(pairs, None).expect("settings");
    settings.server.retire_ms = RETIRE_MS;
    let (started, address) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        actix_rt::System::new().block_on(async move {
            let app = App::build(settings).await;
            let app = app.expect("the server starts");
            started.send(app.address()).unwrap();
            let stopped = async {
                let _ = stopped.await;
                "the end of the test"
            };
            app.run_until(stopped).await.expect("an orderly end");
        });
    });
    let address = address.recv().expect("the server started");
    (address, Running { stop, thread })
}
