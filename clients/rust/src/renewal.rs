//! The one task of a client that renews its leases, each after a third of its ttl.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::Method;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::clock::{BootTime, reached};
use crate::error::Error;
use crate::lease::Lease;
use crate::names;
use crate::transport::{Answer, Request, Transport};

/// The shortest time that is given to one renewal.
const ANSWER_MIN: Duration = Duration::from_millis(100);

/// Where new leases are handed to the task.
#[derive(Default)]
pub(crate) struct Renewals {
    task: Mutex<Option<mpsc::UnboundedSender<Weak<Lease>>>>,
}

/// What a renewal is answered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Renewed {
    /// In seconds.
    ttl: f64,
    fencing_token: u64,
}

impl Renewed {
    fn ttl(&self) -> Duration {
        Duration::try_from_secs_f64(self.ttl).unwrap_or_default()
    }
}

impl Renewals {
    /// Renews the lease from now on, until it ends or nobody has it any more. Must be called on a runtime.
    pub(crate) fn add(&self, transport: &Arc<Transport>, lease: &Arc<Lease>) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let lease = Arc::downgrade(lease);
        // The task ends with the runtime that it was started on; the next lease starts it anew.
        let unsent = match &*task {
            Some(sender) => sender.send(lease).err().map(|refused| refused.0),
            None => Some(lease),
        };
        if let Some(lease) = unsent {
            let (sender, receiver) = mpsc::unbounded_channel();
            // It cannot be refused: the receiver is right here.
            let _ = sender.send(lease);
            tokio::spawn(run(Arc::clone(transport), receiver));
            *task = Some(sender);
        }
    }
}

async fn run(transport: Arc<Transport>, mut added: mpsc::UnboundedReceiver<Weak<Lease>>) {
    let mut resting: Vec<Weak<Lease>> = Vec::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        resting.retain(|lease| lease.upgrade().is_some_and(|lease| lease.check().is_ok()));
        let moments = resting
            .iter()
            .filter_map(|lease| lease.upgrade()?.renew_at());
        let next = moments.min();
        tokio::select! {
            lease = added.recv() => match lease {
                Some(lease) => resting.push(lease),
                // The client is gone, and with it every guard.
                None => return,
            },
            Some(lease) = under_way.next() => resting.push(lease),
            () = reached(next) => {}
        }
        let is_due = |lease: &mut Weak<Lease>| {
            let moment = lease.upgrade().and_then(|lease| lease.renew_at());
            moment.is_some_and(BootTime::has_passed)
        };
        for lease in resting.extract_if(.., is_due) {
            under_way.push(renew(&transport, lease));
        }
    }
}

/// Renews it, with as many tries as its time allows.
async fn renew(transport: &Transport, lease: Weak<Lease>) -> Weak<Lease> {
    let Some(held) = lease.upgrade() else {
        return lease;
    };
    // Released, or lost: no answer matters any more.
    let mut changes = held.watch();
    let ended = changes.wait_for(|state| state.ended.is_some());
    tokio::select! {
        _ = ended => {}
        () = renew_in_time(transport, &held) => {}
    }
    lease
}

async fn renew_in_time(transport: &Transport, lease: &Lease) {
    while lease.check().is_ok() {
        let left = lease.lost_at().map_or(Duration::MAX, BootTime::remaining);
        let Ok(mut request) = request(transport, &lease.name, &lease.ticket, lease.ttl) else {
            return;
        };
        // A server that does not answer leaves time to ask another, or the same one on another connection.
        request.answer_within = transport.timeout.min((left / 3).max(ANSWER_MIN));
        request.until = lease.lost_at();
        request.grace = Duration::ZERO;
        if let Ok(answer) = transport.send(&request).await {
            match answer.loss() {
                Some(reason) => return lease.end(reason),
                None if take(lease, &answer).is_ok() => return,
                // Refused for another reason, as while keys change: the lease goes on, and so do we.
                None => {}
            }
        }
        tokio::time::sleep((left / 10).max(ANSWER_MIN)).await;
    }
}

/// Counts a renewal that was answered.
pub(crate) fn take(lease: &Lease, answer: &Answer) -> Result<(), Error> {
    let renewed: Renewed = answer.read()?;
    lease.renewed(answer.sent, renewed.ttl());
    Ok(())
}

/// Renews a ticket that nobody works under yet. `margin`: of the lease that this returns.
///
/// # Errors
/// [`Error::Lost`]: it has ended.
pub(crate) async fn begin(
    transport: &Transport,
    (name, ticket): (String, String),
    (ttl, margin): (Duration, Duration),
) -> Result<Lease, Error> {
    let request = request(transport, &name, &ticket, ttl)?;
    let answer = transport.send(&request).await?;
    answer.check_ticket(&name)?;
    let renewed: Renewed = answer.read()?;
    Ok(Lease::new(
        (name, ticket, renewed.fencing_token),
        (answer.sent, Duration::ZERO),
        renewed.ttl(),
        (ttl, margin),
    ))
}

pub(crate) fn request(
    transport: &Transport,
    name: &str,
    ticket: &str,
    ttl: Duration,
) -> Result<Request, Error> {
    let mut request = transport.request(Method::PUT, names::action(name, "renew")?);
    request.ticket = Some(ticket.to_owned());
    request.body = Some(serde_json::json!({"ttl": names::seconds(ttl)}).to_string());
    Ok(request)
}
