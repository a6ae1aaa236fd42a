//! What is given back in the background, and waiting for it.

use tokio::runtime::Handle;
use tokio::sync::watch;

/// How many releases are under way that nobody waits for.
pub(crate) struct Background(watch::Sender<usize>);

impl Default for Background {
    fn default() -> Background {
        Background(watch::Sender::new(0))
    }
}

/// Counts one for as long as it lives: a runtime that ends drops it with its task.
struct UnderWay(watch::Sender<usize>);

impl Background {
    pub(crate) fn spawn(&self, runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) {
        self.0.send_modify(|count| *count += 1);
        let under_way = UnderWay(self.0.clone());
        runtime.spawn(async move {
            work.await;
            drop(under_way);
        });
    }

    pub(crate) async fn ended(&self) {
        // The sender is here, so that it cannot be closed.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
