//! A thread that owns a connection and does jobs on it, one after the other.
//!
//! It ends when every [`Jobs`] is dropped, and it closes its connection before [`WorkerEnded`]
//! tells so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::StoreError;
use super::file::DatabaseFile;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Where jobs are handed in.
#[derive(Clone)]
pub(super) struct Jobs(mpsc::Sender<Job>);

/// Resolves when the thread's connection is closed.
pub(super) type WorkerEnded = oneshot::Receiver<()>;

impl Jobs {
    /// Queues a job. One whose answer nobody awaits any more when its turn comes is not done. Without an
    /// answer the thread ended.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> oneshot::Receiver<Result<T, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if !answer.is_closed() {
                // Nobody may be left to hear it, which is theirs to decide.
                let _ = answer.send(job(connection));
            }
        });
        // A job that cannot be queued is dropped, and its answer with it.
        let _ = self.0.send(job);
        answered
    }
}

/// What a caller gets whose job nobody does.
pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("the file is not open".to_owned())
}

pub(super) fn spawn(
    name: &str,
    connection: Connection,
    file: Arc<DatabaseFile>,
) -> Result<(Jobs, WorkerEnded), StoreError> {
    let (jobs, todo) = mpsc::channel::<Job>();
    let (ending, ended) = oneshot::channel::<()>();
    let body = move || {
        // Dropped last to first, after a panic too: the connection, the hold on the file, the news of it.
        let _ending = ending;
        let _file = file;
        let mut connection = connection;
        while let Ok(job) = todo.recv() {
            // The answer is dropped with the job, which tells its asker.
            if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
                log::error!("a read of the file broke off by a mistake of this program");
            }
        }
    };
    start(name, body)?;
    Ok((Jobs(jobs), ended))
}

/// Does one blocking thing on a thread of its own.
pub(super) async fn once<T: Send + 'static>(
    name: &str,
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    start(name, move || {
        let _ = answer.send(job());
    })?;
    answered.await.unwrap_or_else(|_| Err(closed()))
}

fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(body);
    started
        .map(drop)
        .map_err(|error| StoreError::Unavailable(format!("no thread for {name}: {error}")))
}

/// Waits for all of them and forgets them one by one, so that a wait that is given up can be taken up again.
pub(super) async fn all_ended(threads: &mut Vec<WorkerEnded>) {
    while let Some(ended) = threads.last_mut() {
        let _ = ended.await;
        threads.pop();
    }
}
