//! The client against real servers.

#[cfg(feature = "blocking")]
mod blocking;
mod link;
mod locks;
mod looking;
mod loss;
mod retries;
mod server;
mod tls;
mod waiting;

#[test]
#[ignore = "run by the others as a process"]
fn serve_in_a_process_of_its_own() {
    server::serve_until_stdin_ends();
}
