//! Whether each of the other instances can be reached. One connection to each is always kept open, so that `/ready`
//! knows without asking. Also whether this instance reaches itself where the others look for it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::link::Link;
use super::wire::{NO_COMMON_PROTOCOL, Question};
use crate::shared::members::{Reachability, View};
use crate::shared::server_state::ServerState;
use crate::store::PeerAddress;
use crate::store::members::{InstanceId, Member, Members};

/// Between two tries to connect to an instance.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// So many heartbeats after the link was lost prove that the instance lives: one may have been sent before the
/// loss.
const PROOF_OF_LIFE: u64 = 2;

/// What is known of an instance since it stopped answering.
struct Silence {
    since: Instant,
    /// Its last heartbeat that was seen in the database.
    heartbeat: u64,
    /// How many new heartbeats were seen since the loss.
    beats: u64,
    /// The instance answers, but speaks no version of the protocol that this one speaks.
    is_other_protocol: bool,
    /// Whether the warning was logged.
    told: bool,
}

/// Keeps a connection to each of the other living instances, for ever. `lease`: `INSTANCE_LEASE_SECONDS`.
pub async fn monitor_all(server: Arc<ServerState>, lease: Duration) {
    let mut view = server.members.subscribe();
    let mut monitors: HashMap<InstanceId, actix_rt::task::JoinHandle<()>> = HashMap::new();
    let mut seen: Option<Arc<Members>> = None;
    loop {
        let now = view.borrow_and_update().clone();
        count(&server, &now, seen.as_deref());
        // The task of an instance ends when that is marked as dead. If it lives after all, it gets a new task.
        monitors.retain(|_, task| !task.is_finished());
        for other in now.others_alive() {
            monitors.entry(other.id).or_insert_with(|| {
                let peer = other.peer.as_ref();
                let address = peer.map_or("no address", |peer| &peer.address);
                log::debug!("found an instance at {address}");
                let monitoring = monitor(server.clone(), other.id, lease);
                actix_rt::spawn(monitoring)
            });
        }
        if let Some(members) = &now.members
            && now.others_alive().next().is_some()
        {
            let checking = || actix_rt::spawn(check_own_address(server.clone(), members.me, lease));
            monitors.entry(members.me).or_insert_with(checking);
        }
        seen = now.members;
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// Updates the metrics about all instances. `before`: the instances as read the time before.
fn count(server: &ServerState, view: &View, before: Option<&Members>) {
    let Some(members) = &view.members else {
        return;
    };
    let metrics = &server.metrics;
    let out_of_reach = [Reachability::CutOff, Reachability::OtherProtocol];
    let others = view.others_alive().map(|one| view.reachability(one.id));
    let unreachable = others.filter(|it| out_of_reach.contains(it)).count();
    metrics.peers_unreachable.set(unreachable as i64);
    let others = view.others_alive().count();
    metrics.instances.set(1 + others as i64);
    metrics.slots.set(server.slots.count() as i64);
    if let Some(before) = before {
        let (gained, lost) = moved(before, members);
        metrics.slots_gained_total.inc_by(gained);
        metrics.slots_lost_total.inc_by(lost);
        let takeovers = taken_over(before, members);
        metrics.takeovers_total.inc_by(takeovers);
    }
}

/// From how many dead instances this one has taken slots over. Slots of an instance that was alive `before`
/// were given.
fn taken_over(before: &Members, now: &Members) -> u64 {
    let is_here = |id: &InstanceId| {
        let both = before.owners.iter().zip(now.owners.iter());
        both.into_iter().any(|(was, is)| was == id && *is == now.me)
    };
    let dead = before.members.iter().filter(|one| !one.state.is_alive());
    dead.filter(|one| one.id != now.me && is_here(&one.id))
        .count() as u64
}

/// How many slots this instance has gained, and how many it has lost.
fn moved(before: &Members, now: &Members) -> (u64, u64) {
    let both = before.owners.iter().zip(now.owners.iter());
    both.fold((0, 0), |(gained, lost), (before_of, now_of)| {
        let (was_here, is_here) = (*before_of == before.me, *now_of == now.me);
        let came = u64::from(is_here && !was_here);
        (gained + came, lost + u64::from(was_here && !is_here))
    })
}

/// The instance; `None`: it is dead or gone.
fn member(view: &View, id: InstanceId) -> Option<&Member> {
    let member = view.members.as_ref()?.member(id)?;
    (member.state.is_alive()).then_some(member)
}

/// Records whether the instance can be reached.
fn note(server: &ServerState, id: InstanceId, reachability: Reachability) {
    let view = &server.members;
    view.send_if_modified(|view| view.set_reachability(id, reachability));
}

/// Keeps a connection to one instance for as long as that lives, and records whether it can be reached.
async fn monitor(server: Arc<ServerState>, id: InstanceId, lease: Duration) {
    let mut view = server.members.subscribe();
    let mut silence: Option<Silence> = None;
    loop {
        let Some(member) = member(&view.borrow_and_update(), id).cloned() else {
            log::debug!("an instance is dead or gone");
            return;
        };
        if let Some(peer) = &member.peer {
            match Link::open(id, peer, lease / 2).await {
                Ok(link) => {
                    silence = None;
                    note(&server, id, Reachability::Reached);
                    until_lost(&server, id, &link).await;
                }
                Err(error) => {
                    let silence = lost(&mut silence, member.heartbeat, lease / 4);
                    silence.is_other_protocol = error.kind() == NO_COMMON_PROTOCOL;
                    warn_once(silence, lease, peer, &error);
                }
            }
        }
        let known = view.borrow().reachability(id);
        let reachability = judged(
            lost(&mut silence, member.heartbeat, lease / 4),
            known,
            lease,
        );
        note(&server, id, reachability);
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Connects to this instance at the address that the others read, and warns if that fails for long: they give it no
/// slots if they cannot reach it, and only their logs would say why. Returns when this instance has another id.
async fn check_own_address(server: Arc<ServerState>, me: InstanceId, lease: Duration) {
    let mut view = server.members.subscribe();
    let begun = Instant::now();
    loop {
        let Some(own) = member(&view.borrow_and_update(), me).cloned() else {
            return;
        };
        let Some(peer) = own.peer else {
            break;
        };
        let Err(error) = Link::open(me, &peer, lease / 2).await else {
            break;
        };
        if begun.elapsed() >= lease / 2 {
            let address = &peer.address;
            log::warn!(
                "this instance does not reach itself at {address}, where the others look for it: {error}; \
                 if they do not reach it either, it gets no names: see ADVERTISE_ADDRESS and PEER_PORT"
            );
            break;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    let _ = view.wait_for(|view| member(view, me).is_none()).await;
}

/// Returns when the connection has ended or the instance is dead or gone.
async fn until_lost(server: &ServerState, id: InstanceId, link: &Link) {
    let mut view = server.members.subscribe();
    let gone = async {
        let _ = view.wait_for(|view| member(view, id).is_none()).await;
    };
    let mut trips = link.round_trips();
    let counting = async {
        while trips.changed().await.is_ok() {
            let took = *trips.borrow_and_update();
            let seconds = &server.metrics.peer_round_trip_seconds;
            seconds.observe(took.as_secs_f64());
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = link.ended() => {}
        () = gone => {}
        () = counting => {}
        () = tell_of_gifts(server.members.subscribe(), id, link) => {}
    }
}

/// Tells the instance to read the store at once when it was given slots. Else it would read it only later, or when
/// a request for them comes.
async fn tell_of_gifts(mut view: watch::Receiver<View>, id: InstanceId, link: &Link) {
    let (mut told, _) = view.borrow().given;
    while view.changed().await.is_ok() {
        let (given, last_to) = view.borrow_and_update().given;
        // Of several gifts since the last change only the last receiver is known, so every instance is told.
        if given > told && (last_to == id || given > told + 1) {
            link.tell(Question::Look);
        }
        told = given;
    }
}

/// Records that the instance does not answer, and counts its heartbeats. Those that are seen within `settled`
/// after the loss do not count, however many: they may have been sent before it.
fn lost(silence: &mut Option<Silence>, heartbeat: u64, settled: Duration) -> &mut Silence {
    let silence = silence.get_or_insert_with(|| Silence {
        since: Instant::now(),
        heartbeat,
        beats: 0,
        is_other_protocol: false,
        told: false,
    });
    if silence.heartbeat != heartbeat {
        silence.heartbeat = heartbeat;
        if silence.since.elapsed() >= settled {
            silence.beats += 1;
        }
    }
    silence
}

/// Logs once that the instance cannot be reached, if that lasts.
fn warn_once(silence: &mut Silence, lease: Duration, peer: &PeerAddress, error: &io::Error) {
    let is_lasting = silence.is_other_protocol || silence.since.elapsed() >= lease / 2;
    if is_lasting && !silence.told {
        silence.told = true;
        let address = &peer.address;
        log::warn!("another instance cannot be reached at {address}: {error}");
    }
}

/// The reachability of an instance that does not answer. `known`: until now.
fn judged(silence: &Silence, known: Reachability, lease: Duration) -> Reachability {
    let is_long = silence.since.elapsed() >= lease / 2;
    match known {
        _ if silence.is_other_protocol => Reachability::OtherProtocol,
        _ if silence.beats >= PROOF_OF_LIFE && is_long => Reachability::CutOff,
        Reachability::Reached => Reachability::Lost,
        Reachability::OtherProtocol => Reachability::NotYet,
        Reachability::NotYet | Reachability::Lost | Reachability::CutOff => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::FencingToken;
    use crate::store::members::SLOTS;

    #[test]
    fn one_sign_of_life_may_have_been_on_its_way_and_two_are_a_proof() {
        let mut silence = None;
        assert_eq!(lost(&mut silence, 7, Duration::ZERO).beats, 0);
        assert_eq!(lost(&mut silence, 8, Duration::ZERO).beats, 1);
        assert_eq!(lost(&mut silence, 8, Duration::ZERO).beats, 1);
        assert_eq!(lost(&mut silence, 10, Duration::ZERO).beats, PROOF_OF_LIFE);
        // Heartbeats that are seen within the settling time do not count.
        let (mut silence, settled) = (None, Duration::from_secs(60));
        for heartbeat in [7, 8, 9] {
            assert_eq!(lost(&mut silence, heartbeat, settled).beats, 0);
        }
    }

    #[test]
    fn an_instance_that_does_not_answer_is_cut_off_once_it_is_known_to_live() {
        use Reachability::{CutOff, Lost, NotYet, OtherProtocol, Reached};
        let (short, long) = (Duration::from_secs(3600), Duration::ZERO);
        let mut silence = None;
        lost(&mut silence, 1, Duration::ZERO).beats = PROOF_OF_LIFE;
        let silence = silence.as_mut().unwrap();
        assert_eq!(judged(silence, Reached, long), CutOff);
        assert_eq!(judged(silence, Reached, short), Lost);
        assert_eq!(judged(silence, Lost, short), Lost);
        assert_eq!(judged(silence, CutOff, short), CutOff);
        silence.is_other_protocol = true;
        assert_eq!(judged(silence, NotYet, long), OtherProtocol);
        (silence.is_other_protocol, silence.beats) = (false, 0);
        assert_eq!(judged(silence, OtherProtocol, long), NotYet);
        assert_eq!(judged(silence, NotYet, long), NotYet);
    }

    #[test]
    fn slots_that_come_and_go_are_counted() {
        let map = |me: u8, owners: [u8; 2]| Members {
            me: [me; 16],
            members: Vec::new(),
            owners: (0..SLOTS).map(|n| [owners[n % 2]; 16]).collect(),
            token_floor: FencingToken(0),
            recorded_profile: None,
        };
        let half = SLOTS as u64 / 2;
        assert_eq!(moved(&map(1, [1, 2]), &map(1, [1, 2])), (0, 0));
        assert_eq!(moved(&map(1, [1, 2]), &map(1, [2, 1])), (half, half));
        assert_eq!(moved(&map(1, [1, 1]), &map(1, [1, 2])), (0, half));
        // This instance was taken for dead and is back under another id.
        assert_eq!(moved(&map(1, [1, 2]), &map(3, [2, 2])), (0, half));
    }
}
