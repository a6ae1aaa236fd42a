//! What is given back in the background, and waiting for it.

use tokio::runtime::Handle;
use tokio::sync::watch;

/// Each release under way that nobody waits for has a receiver; a runtime that ends drops it with its task.
#[derive(Default)]
pub(crate) struct Background(watch::Sender<()>);

impl Background {
    pub(crate) fn spawn(&self, runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) {
        let under_way = self.0.subscribe();
        runtime.spawn(async move {
            work.await;
            drop(under_way);
        });
    }

    pub(crate) async fn ended(&self) {
        self.0.closed().await;
    }
}
