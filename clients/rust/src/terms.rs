//! What a lock is asked for with.

use std::time::Duration;

use crate::error::Error;
use crate::names;

/// A lease without a ttl of its own lasts this long after its last renewal.
const TTL: Duration = Duration::from_secs(30);
/// The longest ttl that the server takes.
const TTL_MAX: Duration = Duration::from_secs(2_147_483_647);
/// Longer than this before its end no lease counts as lost unless that is asked for.
const MARGIN_MAX: Duration = Duration::from_secs(1);

/// What a lock is asked for with.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) owner: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) ttl: Duration,
    /// `None`: for ever.
    pub(crate) wait: Option<Duration>,
    pub(crate) shared: bool,
    pub(crate) create: bool,
    pub(crate) margin: Option<Duration>,
}

impl Terms {
    pub(crate) fn new(owner: Option<String>) -> Terms {
        Terms {
            owner,
            reason: None,
            ttl: TTL,
            wait: None,
            shared: false,
            create: false,
            margin: None,
        }
    }

    pub(crate) fn margin(&self) -> Duration {
        self.margin.unwrap_or_else(|| default_margin(self.ttl))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.ttl.is_zero() || self.ttl > TTL_MAX {
            let why = "the ttl must be more than 0 and at most 2147483647 seconds";
            return Err(Error::Invalid(why.into()));
        }
        if self.margin() >= self.ttl / 2 {
            return Err(Error::Invalid(
                "the margin must be less than half of the ttl".into(),
            ));
        }
        Ok(())
    }

    /// The body of a lock request.
    pub(crate) fn body(&self) -> String {
        let mut body = serde_json::json!({"ttl": names::seconds(self.ttl)});
        for (field, text) in [("owner", &self.owner), ("reason", &self.reason)] {
            if let Some(text) = text {
                body[field] = text.as_str().into();
            }
        }
        if self.shared {
            body["mode"] = "shared".into();
        }
        body.to_string()
    }
}

pub(crate) fn default_margin(ttl: Duration) -> Duration {
    (ttl / 10).min(MARGIN_MAX)
}

/// The setters that [`Lock`] and [`LockAll`](crate::LockAll) share.
macro_rules! terms {
    ($name:ident) => {
        impl $name {
            /// How long the lock outlives its last renewal (30 s). It is renewed each third of it.
            pub fn ttl(mut self, ttl: std::time::Duration) -> $name {
                self.terms.ttl = ttl;
                self
            }

            /// How long to wait for it. Not set: for ever, once the server has been reached.
            pub fn wait(mut self, wait: std::time::Duration) -> $name {
                self.terms.wait = Some(wait);
                self
            }

            /// Who we are, instead of the client's owner.
            pub fn owner(mut self, owner: impl Into<String>) -> $name {
                self.terms.owner = Some(owner.into());
                self
            }

            /// What it is taken for, for people: 1 to 255 characters.
            pub fn reason(mut self, reason: impl Into<String>) -> $name {
                self.terms.reason = Some(reason.into());
                self
            }

            /// Shares it with all others who do; an exclusive holder stands alone.
            pub fn shared(mut self) -> $name {
                self.terms.shared = true;
                self
            }

            /// Makes the name for as long as somebody holds it or waits, where it does not exist.
            pub fn create(mut self, create: bool) -> $name {
                self.terms.create = create;
                self
            }

            /// How long before the lease can end it counts as lost (a tenth of the ttl, at most 1 s): as long as it
            /// takes to stop what is done under it. Less than half of the ttl.
            pub fn margin(mut self, margin: std::time::Duration) -> $name {
                self.terms.margin = Some(margin);
                self
            }
        }
    };
}
pub(crate) use terms;
