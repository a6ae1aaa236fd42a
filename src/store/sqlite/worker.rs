//! A thread that owns a connection and runs jobs on it, one after the other.
//!
//! It ends when its [`Jobs`] are `None`. Its connection is closed before [`WorkerEnded`] resolves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::StoreError;
use super::error::unread;
use super::file::DatabaseFile;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The queue of a thread's jobs. `None`: the file is not open.
pub(super) type Jobs = Mutex<Option<mpsc::Sender<Job>>>;

/// Resolves when the thread's connection is closed.
pub(super) type WorkerEnded = oneshot::Receiver<()>;

/// Runs a job on the thread, after those before it. It is skipped if its caller is gone by then. Holds no sender of
/// jobs while it waits, so that the thread can be ended.
pub(super) async fn run<T: Send + 'static>(
    jobs: &Jobs,
    job: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    let job: Job = Box::new(move |connection| {
        if !answer.is_closed() {
            // The caller may have stopped waiting, which is no error.
            let _ = answer.send(job(connection).map_err(unread));
        }
    });
    // If there is no thread, or it has ended, the job is dropped here, together with the sender of its answer.
    match &*jobs.lock() {
        Some(jobs) => drop(jobs.send(job)),
        None => drop(job),
    }
    answered.await.unwrap_or_else(|_| Err(closed()))
}

/// The error of a call while the file is not open.
pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("the file is not open".to_owned())
}

/// Starts a thread that runs these jobs on this connection. `file` is kept until the thread ends.
pub(super) fn spawn(
    name: &str,
    jobs: &Jobs,
    connection: Connection,
    file: Arc<DatabaseFile>,
) -> Result<WorkerEnded, StoreError> {
    let (sender, todo) = mpsc::channel::<Job>();
    let (ending, ended) = oneshot::channel::<()>();
    start(name, move || {
        // Dropped in reverse order, after a panic too: first the connection, then the file, then the sender
        // that reports the end.
        let _ending = ending;
        let _file = file;
        let mut connection = connection;
        while let Ok(job) = todo.recv() {
            // A panic drops the sender of the answer, so the caller gets an error.
            if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
                log::error!("a read of the file panicked, which is a bug of this program");
            }
        }
    })?;
    *jobs.lock() = Some(sender);
    Ok(ended)
}

/// Runs one blocking job on a thread of its own.
pub(super) async fn once<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    start("sqlite-open", move || {
        let _ = answer.send(job());
    })?;
    answered.await.unwrap_or_else(|_| Err(closed()))
}

fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(body);
    started
        .map(drop)
        .map_err(|error| StoreError::Unavailable(format!("cannot start {name}: {error}")))
}
