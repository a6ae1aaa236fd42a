//! The client against real servers.

mod link;
mod locks;
mod looking;
mod loss;
mod server;
mod tls;
mod waiting;

#[test]
#[ignore = "run by the others as a process"]
fn serve_in_a_process_of_its_own() {
    server::serve_until_stdin_ends();
}
