//! Slots in a store that several instances share: which ones this instance owns, gives away and takes over. One step (a
//! gift or a take-over) at a time, each followed by a heartbeat: only what the store says counts.

use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use crate::persistence::actor::{Persistence, unpanicked, within};
use crate::persistence::shares;
use crate::shared::gate::boottime_ms;
use crate::shared::members::Reachability;
use crate::shared::registry_notice::RegistryNotice;
use crate::store::StoreError;
use crate::store::members::{InstanceId, MemberState, Members, Slot, heartbeat_valid};

/// Most slots that are given in one step, so that their names are unavailable only for a moment.
const STEP_MAX: usize = 64;
/// Pause after a take-over, and after a step that failed, before the next step.
const AGAIN_PAUSE: Duration = Duration::from_millis(200);
/// How long a new instance is given no slots; or the time for which a heartbeat is valid, if that is shorter. So no
/// name waits for an instance that crashes again and again as soon as it serves.
const NEWCOMER: Duration = Duration::from_secs(2);

impl Persistence {
    /// Handles what the store says about instances and slots, when it was opened or answered a heartbeat: this
    /// instance begins to answer for slots that it owns. If another instance owns a slot that this one did not give,
    /// the store is lost.
    pub(super) fn handle_members(&mut self, members: Members, ctx: &mut Context<Self>) {
        self.server.raise_token_floor(members.token_floor);
        let now = self.server.mono();
        let slots = &self.server.slots;
        for slot in Slot::all() {
            let is_mine = members.owner(slot) == members.me;
            if is_mine && slots.is_elsewhere(slot) {
                slots.gain(slot, now);
            } else if !is_mine && slots.has(slot) {
                let text = "other instances own slots that this instance has not given away";
                return self.lose_store(&StoreError::Unavailable(text.to_owned()), ctx);
            }
        }
        let first_seen = &mut self.first_seen;
        first_seen.retain(|id, _| members.member(*id).is_some());
        for member in &members.members {
            first_seen.entry(member.id).or_insert_with(Instant::now);
        }
        let all = &self.server.members;
        all.send_if_modified(|view| view.see(members));
        self.take_step(ctx);
    }

    /// Sends a heartbeat, and handles what the store returns about the other instances.
    pub(super) fn send_heartbeat(&mut self, ctx: &mut Context<Self>) {
        if !self.is_serving() || self.server.store.instance_lease().is_none() {
            return;
        }
        if self.heartbeat_open {
            self.heartbeat_again = true;
            return;
        }
        self.heartbeat_open = true;
        let store = self.server.store.clone();
        let sent = boottime_ms();
        let (incarnation, gifts) = (self.server.incarnation(), self.gifts);
        within(self.store_timeout(), async move { store.heartbeat().await })
            .into_actor(self)
            .map(move |result, actor, ctx| {
                actor.heartbeat_open = false;
                if actor.server.incarnation() == incarnation {
                    actor.heartbeat_answered(result, sent, gifts, ctx);
                }
                if std::mem::take(&mut actor.heartbeat_again) {
                    actor.send_heartbeat(ctx);
                }
            })
            .spawn(ctx);
    }

    /// Handles the answer to a heartbeat. `sent`: when it was sent, in [`boottime_ms`]. `gifts`: the number of
    /// gifts by then.
    fn heartbeat_answered(
        &mut self,
        result: Result<Option<Members>, StoreError>,
        sent: u64,
        gifts: u64,
        ctx: &mut Context<Self>,
    ) {
        let members = match result {
            Ok(members) => members,
            Err(error) => return self.lose_store(&error, ctx),
        };
        self.extend_validity(sent);
        match members {
            Some(members) if self.gifts == gifts => self.handle_members(members, ctx),
            Some(_) => self.heartbeat_again = true,
            None => {}
        }
    }

    /// Lets answers leave for as long as a heartbeat that was sent at this time ([`boottime_ms`]) is valid, if the
    /// store is shared.
    pub(super) fn extend_validity(&self, sent: u64) {
        if let Some(lease) = self.server.store.instance_lease() {
            let valid_ms = heartbeat_valid(lease).as_millis() as u64;
            self.server.gate.valid_until(sent + valid_ms);
        }
    }

    /// The store is lost: this instance answers for no slots, and the step in progress is void.
    pub(super) fn forget_slots(&mut self) {
        self.server.slots.lose_all();
        self.slots_move = false;
        self.gifts += 1;
    }

    /// Begins the next step, if none is in progress: a take-over, else a gift.
    fn take_step(&mut self, ctx: &mut Context<Self>) {
        if self.slots_move || self.no_move_before > Instant::now() {
            return;
        }
        if let Some(dead) = self.next_dead() {
            self.take_over(dead, ctx);
        } else if let Some((slots, to)) = self.next_gift() {
            self.begin_gift(slots, to, ctx);
        } else if let Some(given) = self.slots_given.take() {
            // No slots are left, or no instance takes them.
            let _ = given.send(());
        }
    }

    /// The dead instance from which this one takes over next.
    fn next_dead(&self) -> Option<InstanceId> {
        let view = self.server.members.borrow();
        let members = view.members.as_ref()?;
        let takes = |id: &InstanceId| !self.is_leaving && *id != members.me;
        members.dead().find(takes)
    }

    /// The slots that this instance gives next, and the instance that receives them.
    fn next_gift(&self) -> Option<(Vec<Slot>, InstanceId)> {
        let view = self.server.members.borrow();
        let members = view.members.as_ref()?;
        let takes = |id: InstanceId, state: MemberState| match id == members.me {
            true => !self.is_leaving,
            false => {
                let serves =
                    state == MemberState::Serves && view.reachability(id) == Reachability::Reached;
                serves && (self.is_leaving || !self.is_newcomer(id))
            }
        };
        let all = members.members.iter();
        let live: Vec<InstanceId> = all
            .filter(|member| takes(member.id, member.state))
            .map(|member| member.id)
            .collect();
        let moves = shares::plan(&members.owners, &live);
        let mine: Vec<_> = moves
            .into_iter()
            .filter(|(_, from, _)| *from == members.me)
            .collect();
        let (_, _, to) = *mine.first()?;
        let to_this_one = mine.into_iter().filter(|(.., id)| *id == to);
        let slots = to_this_one.filter_map(|(slot, ..)| Slot::all().nth(slot));
        Some((slots.take(STEP_MAX).collect(), to))
    }

    /// Whether an instance is too new to be given slots.
    fn is_newcomer(&self, id: InstanceId) -> bool {
        let lease = self.server.store.instance_lease();
        let valid = lease.map_or(NEWCOMER, heartbeat_valid);
        let first_seen = self.first_seen.get(&id);
        first_seen.is_none_or(|since| since.elapsed() < valid.min(NEWCOMER))
    }

    /// Runs `work`, and then `next` with its result, unless the store was lost meanwhile.
    fn run_then<T: 'static>(
        &mut self,
        work: impl Future<Output = T> + 'static,
        ctx: &mut Context<Self>,
        next: impl FnOnce(&mut Self, T, &mut Context<Self>) + 'static,
    ) {
        let incarnation = self.server.incarnation();
        work.into_actor(self)
            .map(move |result, actor, ctx| {
                if actor.server.incarnation() == incarnation {
                    next(actor, result, ctx);
                }
            })
            .spawn(ctx);
    }

    /// Ends a step and sends a heartbeat: at once, or after a pause if the step may have to be tried again (`again`).
    fn end_step(&mut self, again: bool, ctx: &mut Context<Self>) {
        self.slots_move = false;
        if again {
            self.no_move_before = Instant::now() + AGAIN_PAUSE;
            ctx.run_later(AGAIN_PAUSE, |actor, ctx| actor.send_heartbeat(ctx));
        } else {
            self.send_heartbeat(ctx);
        }
    }

    fn take_over(&mut self, dead: InstanceId, ctx: &mut Context<Self>) {
        self.slots_move = true;
        let store = self.server.store.clone();
        // No time-out: the log of the dead instance may be long.
        let taking = unpanicked(async move { store.take_over(dead).await });
        self.run_then(taking, ctx, |actor, result, ctx| match result {
            Ok(()) => {
                actor.no_move_before = Instant::now() + AGAIN_PAUSE;
                actor.end_step(false, ctx);
            }
            Err(error @ StoreError::Rejected(_)) => {
                log::error!("nothing was taken over: {error}");
                actor.end_step(true, ctx);
            }
            Err(error) => actor.lose_store(&error, ctx),
        });
    }

    /// Begins a gift: makes a checkpoint while the slots are still answered for, so that requests wait less later.
    fn begin_gift(&mut self, slots: Vec<Slot>, to: InstanceId, ctx: &mut Context<Self>) {
        // After the gift only the new owner may add to the history of these names.
        let Ok(alone) = self.handing_over.clone().try_lock_owned() else {
            return self.end_step(true, ctx);
        };
        self.slots_move = true;
        let (server, incarnation) = (self.server.clone(), self.server.incarnation());
        let preparing = async move {
            let _alone = alone;
            server.hand_over_history().await;
            server.store.checkpoint().await
        };
        self.run_then(unpanicked(preparing), ctx, move |actor, result, ctx| {
            actor.checkpointed(&result, incarnation, ctx);
            match result {
                Ok(()) => actor.drain_slots(slots, to, ctx),
                Err(_) => actor.end_step(true, ctx),
            }
        });
    }

    /// Stops answering for these slots, and lets their actors finish and retire.
    fn drain_slots(&mut self, slots: Vec<Slot>, to: InstanceId, ctx: &mut Context<Self>) {
        // Before the registry is told, so that it starts no actor of these slots afterwards.
        slots.iter().for_each(|slot| self.server.slots.leave(*slot));
        let Some(registry) = &self.registry else {
            return self.end_step(true, ctx);
        };
        let (left, all_left) = oneshot::channel();
        registry.do_send(RegistryNotice::Leave {
            slots: slots.clone(),
            left,
        });
        let leaving = tokio::time::timeout(self.store_timeout(), all_left);
        self.run_then(leaving, ctx, move |actor, left, ctx| match left {
            Ok(Ok(())) if !actor.has_commits_of(&slots) => actor.commit_gift(slots, to, ctx),
            _ => {
                log::warn!("slots are not given away: some of their names did not finish in time");
                actor.cancel_gift(&slots, ctx);
            }
        });
    }

    /// Whether a commit of these slots is queued or in progress: an actor that died may have left one.
    fn has_commits_of(&self, slots: &[Slot]) -> bool {
        let is_of = |name: &_| slots.contains(&Slot::of(name));
        self.in_flight.keys().any(is_of) || self.commits.lock().any(is_of)
    }

    /// A gift has failed: answers for the slots again.
    fn cancel_gift(&mut self, slots: &[Slot], ctx: &mut Context<Self>) {
        let now = self.server.mono();
        slots
            .iter()
            .for_each(|slot| self.server.slots.gain(*slot, now));
        self.end_step(true, ctx);
    }

    /// Commits the gift. Nothing of these slots is in progress any more.
    fn commit_gift(&mut self, slots: Vec<Slot>, to: InstanceId, ctx: &mut Context<Self>) {
        let Ok(alone) = self.handing_over.clone().try_lock_owned() else {
            return self.cancel_gift(&slots, ctx);
        };
        let (server, given) = (self.server.clone(), slots.clone());
        let giving = async move {
            let _alone = alone;
            // What is left here would be written later, beside what the new owner writes of the same names.
            match server.hand_over_history().await {
                true => server.store.give(&given, to).await,
                false => Ok(false),
            }
        };
        self.run_then(
            unpanicked(giving),
            ctx,
            move |actor, result, ctx| match result {
                Ok(true) => {
                    slots.iter().for_each(|slot| actor.server.slots.lose(*slot));
                    actor.gifts += 1;
                    let view = &actor.server.members;
                    view.send_modify(|view| view.given = (view.given.0 + 1, to));
                    actor.end_step(false, ctx);
                }
                Ok(false) => actor.cancel_gift(&slots, ctx),
                Err(error @ StoreError::Rejected(_)) => {
                    log::error!("slots were not given away: {error}");
                    actor.cancel_gift(&slots, ctx);
                }
                Err(error) => actor.lose_store(&error, ctx),
            },
        );
    }

    /// Gives all slots away, because this instance ends. `given` is sent when that is done.
    pub(super) fn give_slots(&mut self, given: oneshot::Sender<()>, ctx: &mut Context<Self>) {
        if !self.server.slots.are_shared() || !self.is_serving() {
            let _ = given.send(());
            return;
        }
        self.is_leaving = true;
        self.slots_given = Some(given);
        let store = self.server.store.clone();
        let leaving = within(self.store_timeout(), async move { store.leave().await });
        self.run_then(leaving, ctx, |actor, result, ctx| match result {
            Err(error) => actor.lose_store(&error, ctx),
            Ok(()) => actor.send_heartbeat(ctx),
        });
    }
}
