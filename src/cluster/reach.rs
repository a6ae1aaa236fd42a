//! Whether the active instance answers this one: one connection that is always kept, so that `/ready` need not find
//! out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::Link;
use super::wire::NoCommonProtocol;
use crate::shared::owner::{HOLD_BEYOND, Reach};
use crate::shared::server_state::ServerState;
use crate::store::{ActiveInstance, PeerAddress};

/// Between two tries to reach it.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// So many signs of life after the link was lost prove that the instance lives: one may have been on its way.
const PROOF_OF_LIFE: u64 = 2;

/// Since when the active instance does not answer.
struct Silence {
    since: Instant,
    /// Its signs of life in the database, as they were then, and how many have come since.
    heartbeat: u64,
    beats: u64,
    /// It answered, in no version of the protocol that this one speaks.
    is_other_protocol: bool,
    told: bool,
}

/// Keeps in touch with whichever instance is active, for ever. `lease`: `INSTANCE_LEASE_SECONDS`.
pub async fn keep_in_touch(server: Arc<ServerState>, lease: Duration) {
    let mut owner = server.owner.follow();
    let mut silence: Option<Silence> = None;
    loop {
        let active = owner.borrow_and_update().active.clone();
        let peer = active.as_ref().and_then(|active| active.peer.clone());
        if let (Some(active), Some(peer)) = (&active, &peer) {
            match Link::open(active, peer, lease / 2).await {
                Ok(link) => {
                    silence = None;
                    stay(&server, active, &link).await;
                }
                Err(error) => {
                    let silence = lost(&mut silence, active.heartbeat);
                    silence.is_other_protocol = NoCommonProtocol::is(&error);
                    complain(silence, lease, peer, &error);
                }
            }
        } else if let Some(silence) = &mut silence {
            silence.is_other_protocol = false;
        }
        let heartbeat = active.map_or(0, |active| active.heartbeat);
        judge(&server, lost(&mut silence, heartbeat), lease);
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// As long as the connection lasts and leads to the active instance.
async fn stay(server: &ServerState, active: &ActiveInstance, link: &Link) {
    server.owner.reach(Reach::Reached);
    server.metrics.peers.unreachable.set(0);
    let mut owner = server.owner.follow();
    let another = async {
        let same = |known: &ActiveInstance| known.id == active.id;
        let changed = owner.wait_for(|owner| !owner.active.as_ref().is_some_and(same));
        let _ = changed.await;
    };
    let mut trips = link.round_trips();
    let counting = async {
        while trips.changed().await.is_ok() {
            let took = *trips.borrow_and_update();
            server.metrics.peers.round_trip.observe(took.as_secs_f64());
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = link.ended() => {}
        () = another => {}
        () = counting => {}
    }
}

fn lost(silence: &mut Option<Silence>, heartbeat: u64) -> &mut Silence {
    let silence = silence.get_or_insert_with(|| Silence {
        since: Instant::now(),
        heartbeat,
        beats: 0,
        is_other_protocol: false,
        told: false,
    });
    if silence.heartbeat != heartbeat {
        silence.heartbeat = heartbeat;
        silence.beats += 1;
    }
    silence
}

fn complain(silence: &mut Silence, lease: Duration, peer: &PeerAddress, error: &std::io::Error) {
    let is_lasting = silence.is_other_protocol || silence.since.elapsed() >= lease / 2;
    if is_lasting && !silence.told {
        silence.told = true;
        log::warn!(
            "the active instance cannot be reached at {}: {error}",
            peer.address
        );
    }
}

fn judge(server: &ServerState, silence: &Silence, lease: Duration) {
    let long = silence.since.elapsed();
    let known = server.owner.follow().borrow().reach;
    let reach = if silence.is_other_protocol {
        Reach::OtherProtocol
    } else if silence.beats >= PROOF_OF_LIFE && long >= lease / 2 {
        Reach::CutOff
    } else if long >= lease + HOLD_BEYOND && known != Reach::NotYet {
        Reach::Gone
    } else if known == Reach::Reached {
        Reach::Lost
    } else if known == Reach::OtherProtocol {
        Reach::NotYet
    } else {
        known
    };
    server.owner.reach(reach);
    let stands_by = server.gate.check().is_err();
    let is_out_of_reach = matches!(reach, Reach::CutOff | Reach::OtherProtocol);
    let unreachable = stands_by && is_out_of_reach;
    server.metrics.peers.unreachable.set(unreachable.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sign_of_life_may_have_been_on_its_way_and_two_are_a_proof() {
        let mut silence = None;
        assert_eq!(lost(&mut silence, 7).beats, 0);
        assert_eq!(lost(&mut silence, 8).beats, 1);
        assert_eq!(lost(&mut silence, 8).beats, 1);
        assert_eq!(lost(&mut silence, 10).beats, PROOF_OF_LIFE);
    }
}
