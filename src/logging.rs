//! The log of the process, whose filter can be replaced while it runs.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use log::{Log, Metadata, Record};

struct Replaceable(ArcSwap<env_logger::Logger>);

static LOGGER: OnceLock<Replaceable> = OnceLock::new();

impl Log for Replaceable {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.load().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.0.load().log(record);
    }

    fn flush(&self) {
        self.0.load().flush();
    }
}

/// Starts logging to standard error; `filter` is what `RUST_LOG` takes. Where something else logs already,
/// that stays.
pub fn start(filter: &str) {
    let logger = LOGGER.get_or_init(|| Replaceable(ArcSwap::new(build(filter))));
    if log::set_logger(logger).is_ok() {
        set_filter(filter);
    }
}

/// From now on this is logged. Does nothing in a process whose log was not started here.
pub fn set_filter(filter: &str) {
    if let Some(logger) = LOGGER.get() {
        let new = build(filter);
        log::set_max_level(new.filter());
        logger.0.store(new);
    }
}

fn build(filter: &str) -> Arc<env_logger::Logger> {
    let logger = env_logger::Builder::new().parse_filters(filter).build();
    Arc::new(logger)
}
