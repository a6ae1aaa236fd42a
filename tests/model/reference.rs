//! The contract's model once more, as simply as it can be said: a list of places in order of arrival that
//! is walked from its start for every question. Slow, without an index, without a timer. What the core
//! answers is compared with what this answers.

use std::collections::BTreeMap;

use small_resource_server::lock::command::{Death, Grant, HolderView};
use small_resource_server::lock::{
    Answer, Command, EndReason, FencingToken, IdempotencyKey, Millis, Now, Owner, Patience,
    PresentedTicket, RequestId, Seconds, Terms, Ticket, WallMillis,
};

pub type Answers = BTreeMap<RequestId, Answer>;

#[derive(Clone, Debug)]
struct Place {
    ticket: Ticket,
    owner: Option<Owner>,
    ttl: Option<Seconds>,
    key: Option<(IdempotencyKey, Option<Seconds>)>,
    /// The client presented it, or can find it by its key.
    known: bool,
    /// The answer that told of it, while that may still prove lost.
    told_by: Option<RequestId>,
    /// An answer with it was given, or it is known.
    durable: bool,
    /// Of a write that waits.
    ticketless_write: bool,
    open: Vec<(RequestId, Option<Wait>)>,
    seen: Millis,
}

#[derive(Clone, Debug)]
struct Wait {
    until: Option<Millis>,
    /// A write, and whether it releases.
    write: Option<bool>,
    ended: Death,
}

#[derive(Clone, Debug)]
struct Holder {
    place: Place,
    /// Where its place was, should the grant be taken back.
    arrival: u64,
    token: FencingToken,
    acquired_at: WallMillis,
    /// What a restart goes by.
    promised: Option<Seconds>,
    /// Requests that were told of the grant; empty once the client is known to know.
    telling: Vec<RequestId>,
    /// Since when, and through when.
    runs: Option<(Millis, Option<Millis>)>,
}

#[derive(Clone, Debug)]
pub struct Model {
    terms: Terms,
    timeout: Seconds,
    token: FencingToken,
    holder: Option<Holder>,
    reserved: Option<Ticket>,
    /// In order of arrival, each with its arrival number.
    queue: Vec<(u64, Place)>,
    arrivals: u64,
    ended: Vec<(Ticket, EndReason, Millis)>,
    now: Now,
    answers: Answers,
}

/// What happens by itself, in the order in which it counts at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    LeaseOver,
    ReservationOver,
    Dropped(Ticket),
    WaitOver(RequestId),
}

fn later(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        _ => None,
    }
}

impl Model {
    pub fn new(terms: Terms, timeout: Seconds, floor: FencingToken) -> Model {
        Model {
            terms,
            timeout,
            token: floor,
            holder: None,
            reserved: None,
            queue: Vec::new(),
            arrivals: 0,
            ended: Vec::new(),
            now: Now::default(),
            answers: Answers::new(),
        }
    }

    pub fn token(&self) -> FencingToken {
        self.token
    }

    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub fn is_locked(&self) -> bool {
        self.holder.is_some() || self.reserved.is_some()
    }

    /// The process ended; only what was durable is there again.
    pub fn restart(&mut self, now: Now, leases_from: Millis) {
        self.now = now;
        self.queue.retain(|(_, place)| place.durable);
        for (_, place) in &mut self.queue {
            place.known = true;
            place.told_by = None;
            place.open.clear();
            place.seen = now.mono;
        }
        if let Some(mut holder) = self.holder.take() {
            holder.place.known = true;
            holder.place.ttl = holder.promised;
            holder.telling.clear();
            let until = self.ends(holder.promised, leases_from, leases_from);
            holder.runs = Some((leases_from, until));
            self.holder = Some(holder);
        }
        self.remember_ended_from(now);
        self.reserved = None;
        self.settle(now.mono);
    }

    /// The rows of ended tickets were read from the store, which does not say when they ended.
    pub fn remember_ended_from(&mut self, now: Now) {
        for ended in &mut self.ended {
            ended.2 = now.mono;
        }
    }

    // ---- time -------------------------------------------------------------------------------------

    fn near(&self, place: &Place, at: Millis) -> bool {
        !place.open.is_empty() || at < place.seen + self.terms.limits.claim_ms
    }

    fn dues(&self) -> Vec<(Millis, Due)> {
        let limits = self.terms.limits;
        let mut dues = Vec::new();
        if let Some((_, Some(through))) = self.holder.as_ref().and_then(|h| h.runs) {
            dues.push((through + 1, Due::LeaseOver));
        }
        for (_, place) in &self.queue {
            if place.open.is_empty() {
                let far = place.seen + limits.claim_ms;
                if self.reserved == Some(place.ticket) {
                    dues.push((far, Due::ReservationOver));
                }
                let drop = (place.seen + limits.ticket_ttl_ms).max(far);
                dues.push((drop, Due::Dropped(place.ticket)));
            }
            for (request, wait) in &place.open {
                if let Some(until) = wait.as_ref().and_then(|wait| wait.until) {
                    dues.push((until, Due::WaitOver(*request)));
                }
            }
        }
        dues
    }

    /// When something visible happens by itself next.
    pub fn next_due(&self) -> Option<Millis> {
        self.dues().into_iter().map(|(at, _)| at).min()
    }

    fn pass_time(&mut self) {
        while let Some((at, due)) = self.dues().into_iter().min() {
            if at > self.now.mono {
                return;
            }
            match due {
                Due::LeaseOver => self.end_lease(EndReason::Expired),
                Due::ReservationOver => self.reserved = None,
                Due::Dropped(ticket) => self.remove(ticket),
                Due::WaitOver(request) => self.give_up_waiting(request),
            }
            self.settle(at);
        }
    }

    fn give_up_waiting(&mut self, request: RequestId) {
        let index = self.with_request(request).unwrap();
        let place = &mut self.queue[index].1;
        let open = place.open.iter_mut().find(|o| o.0 == request).unwrap();
        let wait = open.1.take().unwrap();
        if wait.write.is_none() {
            return self.tell_place(request, index, wait.ended);
        }
        place.open.retain(|o| o.0 != request);
        place.seen = self.now.mono;
        let (ticket, ticketless_write) = (place.ticket, place.ticketless_write);
        if ticketless_write {
            self.remove(ticket);
        }
        self.answer_locked(request);
    }

    /// Nobody holds: the first near ticket is next.
    fn settle(&mut self, at: Millis) {
        while self.holder.is_none() && self.reserved.is_none() {
            let Some(index) = (0..self.queue.len()).find(|i| self.near(&self.queue[*i].1, at))
            else {
                return;
            };
            let place = &self.queue[index].1;
            if place.open.iter().all(|(_, wait)| wait.is_none()) {
                self.reserved = Some(place.ticket);
            } else if place.ticketless_write {
                let (_, place) = self.queue.remove(index);
                for (request, _) in place.open {
                    self.answer(request, Answer::Writable { token: None });
                }
            } else {
                self.grant(index, None);
            }
        }
    }

    // ---- parts ------------------------------------------------------------------------------------

    fn answer(&mut self, request: RequestId, answer: Answer) {
        let earlier = self.answers.insert(request, answer);
        assert!(earlier.is_none(), "two answers for one request");
    }

    fn with_request(&self, request: RequestId) -> Option<usize> {
        self.queue
            .iter()
            .position(|(_, p)| p.open.iter().any(|o| o.0 == request))
    }

    fn with_ticket(&self, ticket: Ticket) -> Option<usize> {
        self.queue.iter().position(|(_, p)| p.ticket == ticket)
    }

    fn remove(&mut self, ticket: Ticket) {
        self.queue.retain(|(_, place)| place.ticket != ticket);
        if self.reserved == Some(ticket) {
            self.reserved = None;
        }
    }

    fn ttl(&self, own: Option<Seconds>) -> Seconds {
        match own {
            Some(ttl) => ttl,
            None if self.terms.rules.timeout_is_lease_ttl => self.timeout,
            None => Seconds::ZERO,
        }
    }

    fn ends(&self, own: Option<Seconds>, since: Millis, now: Millis) -> Option<Millis> {
        let ttl = self.ttl(own).limit_ms().map(|ms| now + ms);
        let max = self.terms.limits.lease_seconds_max.limit_ms();
        match (ttl, max.map(|ms| since + ms)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub fn view(&self) -> Option<HolderView> {
        let holder = self.holder.as_ref()?;
        let mono = self.now.mono;
        let ends = match holder.runs {
            Some((_, ends)) => ends,
            None => self.ends(holder.promised, mono, mono),
        };
        Some(HolderView {
            owner: holder.place.owner.clone(),
            acquired_at: holder.acquired_at,
            expires_at: ends.map(|at| (self.now.wall + at).saturating_sub(mono)),
            token: holder.token,
        })
    }

    fn told_ttl(&self) -> Seconds {
        let holder = self.holder.as_ref().unwrap();
        let own = self.ttl(holder.place.ttl);
        let Some(max) = self.terms.limits.lease_seconds_max.limit_ms() else {
            return own;
        };
        let left = match holder.runs {
            Some((since, _)) => since + max - self.now.mono,
            None => max,
        };
        let left = Seconds::new((left / 1000).max(1) as i64).unwrap();
        if own == Seconds::ZERO {
            left
        } else {
            own.min(left)
        }
    }

    fn answer_locked(&mut self, request: RequestId) {
        let view = self.view();
        self.answer(request, Answer::Locked(view));
    }

    fn tell_place(&mut self, request: RequestId, index: usize, ended: Death) {
        let place = &mut self.queue[index].1;
        place.durable = true;
        let ticket = place.ticket;
        let position = index + 1;
        self.answer(
            request,
            Answer::Queued {
                ticket,
                position,
                ended,
            },
        );
    }

    fn tell_grant(&mut self, request: RequestId, new: bool, ended: Death) {
        let grant = Grant {
            ticket: self.holder.as_ref().unwrap().place.ticket,
            holder: self.view().unwrap(),
            ttl: self.told_ttl(),
            new,
            ended,
        };
        self.answer(request, Answer::Granted(Box::new(grant)));
    }

    /// The place at `index` becomes a lease; `asking` asked for it just now.
    fn grant(&mut self, index: usize, asking: Option<(RequestId, Death)>) {
        let (arrival, mut place) = self.queue.remove(index);
        self.reserved = None;
        self.token = self.token.next();
        let open: Vec<(RequestId, Wait)> = std::mem::take(&mut place.open)
            .into_iter()
            .filter_map(|(request, wait)| Some((request, wait?)))
            .collect();
        let asked = asking.iter().map(|(request, _)| *request);
        self.holder = Some(Holder {
            arrival,
            token: self.token,
            acquired_at: self.now.wall,
            promised: place.ttl,
            telling: asked.chain(open.iter().map(|o| o.0)).collect(),
            runs: None,
            place,
        });
        if let Some((request, ended)) = asking {
            self.tell_grant(request, true, ended);
        }
        for (request, wait) in open.iter().filter(|(_, wait)| wait.write.is_none()) {
            self.tell_grant(*request, true, wait.ended);
        }
        for (request, wait) in &open {
            if let Some(release) = wait.write {
                self.let_write(*request, release);
            }
        }
    }

    fn let_write(&mut self, request: RequestId, release: bool) {
        let token = self.holder.as_ref().map(|holder| holder.token);
        self.answer(request, Answer::Writable { token });
        if token.is_some() && (release || self.terms.rules.write_releases) {
            self.end_lease(EndReason::Released);
        }
    }

    fn end_lease(&mut self, reason: EndReason) {
        if let Some(holder) = self.holder.take() {
            self.remember(holder.place.ticket, reason);
        }
    }

    fn remember(&mut self, ticket: Ticket, reason: EndReason) {
        self.ended.push((ticket, reason, self.now.mono));
        if self.ended.len() > 64 {
            self.ended.remove(0);
        }
    }

    /// The holder showed itself; `telling` is a request whose answer tells it that it holds.
    fn show_holder(&mut self, ttl: Option<Seconds>, telling: Option<RequestId>) {
        let now = self.now.mono;
        let mut holder = self.holder.take().unwrap();
        holder.place.known = true;
        if ttl.is_some() {
            holder.place.ttl = ttl;
        }
        let (since, old) = match holder.runs {
            Some(runs) => runs,
            None => (now, self.ends(holder.promised, now, now)),
        };
        let new = self.ends(holder.place.ttl, since, now);
        let ends = later(old, new);
        if ends == new {
            holder.promised = holder.place.ttl;
        }
        match telling {
            Some(request) if holder.runs.is_none() => holder.telling.push(request),
            _ => {
                holder.telling.clear();
                holder.runs = Some((since, ends));
            }
        }
        self.holder = Some(holder);
    }

    fn show_place(&mut self, index: usize, ttl: Option<Seconds>) {
        let now = self.now.mono;
        let place = &mut self.queue[index].1;
        place.known = true;
        place.told_by = None;
        place.durable = true;
        place.seen = now;
        if ttl.is_some() {
            place.ttl = ttl;
        }
    }

    // ---- commands ---------------------------------------------------------------------------------

    pub fn apply(&mut self, now: Now, command: &Command) -> Answers {
        self.now = now;
        self.answers.clear();
        self.pass_time();
        self.command(command);
        self.settle(now.mono);
        std::mem::take(&mut self.answers)
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Acquire { .. } => self.acquire(command),
            Command::Touch { request, presented } => {
                let live = match self.who(*presented) {
                    Who::Holder if self.holder.as_ref().unwrap().runs.is_none() => {
                        self.holder.as_mut().unwrap().place.known = true;
                        true
                    }
                    Who::Holder => {
                        self.show_holder(None, None);
                        true
                    }
                    Who::Waiting(index) => {
                        self.show_place(index, None);
                        true
                    }
                    _ => false,
                };
                self.answer(*request, Answer::Touched { live });
            }
            Command::Write { .. } => self.write(command),
            Command::Renew {
                request,
                presented,
                ttl,
            } => {
                let answer = match self.who(*presented) {
                    Who::Holder => {
                        self.show_holder(*ttl, None);
                        let view = self.view().unwrap();
                        Answer::Renewed {
                            ttl: self.told_ttl(),
                            expires_at: view.expires_at,
                            token: view.token,
                        }
                    }
                    Who::Waiting(index) => {
                        self.show_place(index, None);
                        Answer::NotHolder
                    }
                    Who::Dead(death) => Answer::Dead(death),
                    Who::Nobody => Answer::TicketMissing,
                };
                self.answer(*request, answer);
            }
            Command::Unlock { request, presented } => self.unlock(*request, *presented),
            Command::ForceUnlock { request, token } => {
                let view = self.view();
                if token.is_some() && view.as_ref().map(|v| v.token) != *token {
                    return self.answer(*request, Answer::OtherLease);
                }
                self.end_lease(EndReason::ForcedOff);
                self.answer(*request, Answer::Forced(view));
            }
            Command::Delete { request, presented } => self.delete(*request, *presented),
            Command::Vanished { request } => self.vanished(*request),
            Command::Delivered { request } => self.delivered(*request),
            Command::Tick => {}
        }
    }

    fn who(&self, presented: PresentedTicket) -> Who {
        let ticket = match presented {
            PresentedTicket::Absent => return Who::Nobody,
            PresentedTicket::Malformed => return Who::Dead(None),
            PresentedTicket::Ticket(ticket) => ticket,
        };
        if self
            .holder
            .as_ref()
            .is_some_and(|h| h.place.ticket == ticket)
        {
            return Who::Holder;
        }
        if let Some(index) = self.with_ticket(ticket) {
            return Who::Waiting(index);
        }
        let remembered = self.ended.iter().rev().find(|(ended, _, at)| {
            *ended == ticket && self.now.mono <= at + self.terms.limits.ended_ms
        });
        Who::Dead(remembered.map(|(_, reason, _)| *reason))
    }

    fn acquire(&mut self, command: &Command) {
        let Command::Acquire {
            request,
            presented,
            fresh,
            owner,
            ttl,
            key,
            patience,
        } = command
        else {
            unreachable!()
        };
        let ended = match self.who(*presented) {
            Who::Holder => {
                self.show_holder(*ttl, Some(*request));
                return self.tell_grant(*request, false, None);
            }
            Who::Waiting(index) => return self.ask(index, *request, *ttl, *patience, None),
            Who::Dead(death) => death,
            Who::Nobody => None,
        };
        let same_key = |p: &Place| key.is_some() && p.key.as_ref().map(|k| &k.0) == key.as_ref();
        let same = |p: &Place| p.owner == *owner && p.key.as_ref().unwrap().1 == *ttl;
        if let Some(holder) = self.holder.as_ref().filter(|h| same_key(&h.place)) {
            if !same(&holder.place) {
                return self.answer(*request, Answer::KeyReused);
            }
            self.show_holder(None, Some(*request));
            return self.tell_grant(*request, false, ended);
        }
        if let Some(index) = self.queue.iter().position(|(_, p)| same_key(p)) {
            if !same(&self.queue[index].1) {
                return self.answer(*request, Answer::KeyReused);
            }
            return self.ask(index, *request, None, *patience, ended);
        }
        if self.is_locked() && *patience == Patience::Never {
            return self.answer_locked(*request);
        }
        if self.is_locked() && self.waiting() >= self.terms.limits.waiters_max {
            return self.answer(*request, Answer::TooManyWaiters);
        }
        let index = self.arrive(*fresh, false);
        let place = &mut self.queue[index].1;
        place.owner = owner.clone();
        place.ttl = *ttl;
        place.key = key.clone().map(|key| (key, *ttl));
        place.known = key.is_some();
        place.durable = place.known;
        self.queue_up(index, *request, *patience, ended);
    }

    fn arrive(&mut self, ticket: Ticket, ticketless_write: bool) -> usize {
        self.arrivals += 1;
        let place = Place {
            ticket,
            owner: None,
            ttl: None,
            key: None,
            known: false,
            told_by: None,
            durable: false,
            ticketless_write,
            open: Vec::new(),
            seen: self.now.mono,
        };
        self.queue.push((self.arrivals, place));
        self.queue.len() - 1
    }

    fn ask(
        &mut self,
        index: usize,
        request: RequestId,
        ttl: Option<Seconds>,
        patience: Patience,
        ended: Death,
    ) {
        self.show_place(index, ttl);
        self.queue_up(index, request, patience, ended);
    }

    fn is_open_to(&self, index: usize) -> bool {
        let ticket = self.queue[index].1.ticket;
        self.holder.is_none() && self.reserved.is_none_or(|reserved| reserved == ticket)
    }

    fn queue_up(&mut self, index: usize, request: RequestId, patience: Patience, ended: Death) {
        if self.is_open_to(index) {
            return self.grant(index, Some((request, ended)));
        }
        let wait = |until| Wait {
            until,
            write: None,
            ended,
        };
        match patience {
            Patience::Never => self.answer_locked(request),
            Patience::Poll => {
                self.queue[index].1.open.push((request, None));
                self.tell_place(request, index, ended);
            }
            Patience::Until(at) => self.queue[index]
                .1
                .open
                .push((request, Some(wait(Some(at))))),
            Patience::Forever => self.queue[index].1.open.push((request, Some(wait(None)))),
        }
    }

    fn write(&mut self, command: &Command) {
        let Command::Write {
            request,
            presented,
            fresh,
            release,
            patience,
        } = command
        else {
            unreachable!()
        };
        let rules = self.terms.rules;
        let until = match patience {
            _ if !rules.refused_write_waits => None,
            Patience::Never | Patience::Poll => None,
            Patience::Until(at) => Some(Some(*at)),
            Patience::Forever => Some(None),
        };
        let wait = |release, until| Wait {
            until,
            write: Some(release),
            ended: None,
        };
        match self.who(*presented) {
            Who::Holder => {
                self.show_holder(None, Some(*request));
                self.let_write(*request, *release);
            }
            Who::Waiting(index) => {
                self.show_place(index, None);
                if self.is_open_to(index) {
                    let place = &mut self.queue[index].1;
                    place.open.push((*request, Some(wait(*release, None))));
                    self.grant(index, None);
                } else if let Some(until) = until {
                    let place = &mut self.queue[index].1;
                    place.open.push((*request, Some(wait(*release, until))));
                } else {
                    self.answer_locked(*request);
                }
            }
            Who::Dead(death) if !self.writes_as_nobody(death) => {
                self.answer(*request, Answer::Dead(death));
            }
            Who::Dead(_) | Who::Nobody if !self.is_locked() => {
                self.answer(*request, Answer::Writable { token: None });
            }
            Who::Dead(_) | Who::Nobody => match until {
                None => self.answer_locked(*request),
                Some(_) if self.waiting() >= self.terms.limits.waiters_max => {
                    self.answer(*request, Answer::TooManyWaiters);
                }
                Some(until) => {
                    let index = self.arrive(*fresh, true);
                    let place = &mut self.queue[index].1;
                    place.open.push((*request, Some(wait(false, until))));
                }
            },
        }
    }

    fn writes_as_nobody(&self, death: Death) -> bool {
        self.terms.rules.spent_ticket_writes_as_nobody
            && (death.is_none() || death == Some(EndReason::Released))
    }

    fn unlock(&mut self, request: RequestId, presented: PresentedTicket) {
        let answer = match self.who(presented) {
            Who::Holder => {
                self.end_lease(EndReason::Released);
                Answer::Unlocked { dead: None }
            }
            Who::Waiting(index) => {
                let place = self.queue[index].1.clone();
                self.remove(place.ticket);
                self.remember(place.ticket, EndReason::Released);
                for (waiting, _) in place.open.iter().filter(|(_, wait)| wait.is_some()) {
                    self.answer(*waiting, Answer::Dead(Some(EndReason::Released)));
                }
                Answer::Unlocked { dead: None }
            }
            Who::Dead(death) if self.terms.rules.dead_unlock_succeeds => {
                Answer::Unlocked { dead: Some(death) }
            }
            Who::Dead(Some(EndReason::Released)) => Answer::Unlocked { dead: None },
            Who::Dead(death) => Answer::Dead(death),
            Who::Nobody => Answer::TicketMissing,
        };
        self.answer(request, answer);
    }

    fn delete(&mut self, request: RequestId, presented: PresentedTicket) {
        let allowed = match self.who(presented) {
            Who::Holder => true,
            Who::Waiting(index) => {
                self.show_place(index, None);
                self.is_open_to(index)
            }
            Who::Dead(death) if !self.writes_as_nobody(death) => {
                return self.answer(request, Answer::Dead(death));
            }
            Who::Dead(_) | Who::Nobody => !self.is_locked(),
        };
        if !allowed {
            return self.answer_locked(request);
        }
        for (_, place) in std::mem::take(&mut self.queue) {
            for (waiting, _) in place.open.iter().filter(|(_, wait)| wait.is_some()) {
                self.answer(*waiting, Answer::Gone);
            }
        }
        self.holder = None;
        self.reserved = None;
        self.answer(request, Answer::Deletable);
    }

    fn delivered(&mut self, request: RequestId) {
        let now = self.now.mono;
        let ends = self
            .holder
            .as_ref()
            .and_then(|h| self.ends(h.promised, now, now));
        if let Some(holder) = &mut self.holder
            && holder.runs.is_none()
            && holder.telling.contains(&request)
        {
            holder.runs = Some((now, ends));
            return;
        }
        if let Some(index) = self.with_request(request) {
            let place = &mut self.queue[index].1;
            place.open.retain(|o| o.0 != request);
            place.seen = now;
            if !place.known {
                place.told_by = Some(request);
            }
        }
    }

    fn vanished(&mut self, request: RequestId) {
        let now = self.now.mono;
        if let Some(holder) = &mut self.holder
            && holder.telling.contains(&request)
        {
            holder.telling.retain(|told| *told != request);
            if holder.telling.is_empty() {
                self.take_back();
            }
            return;
        }
        let telling = self
            .queue
            .iter()
            .position(|(_, p)| p.told_by == Some(request));
        let Some(index) = self.with_request(request).or(telling) else {
            return;
        };
        let place = &mut self.queue[index].1;
        if place.open.iter().any(|o| o.0 == request) {
            place.open.retain(|o| o.0 != request);
            place.seen = now;
        }
        if !place.known && place.open.is_empty() {
            let ticket = place.ticket;
            self.remove(ticket);
        }
    }

    fn take_back(&mut self) {
        let now = self.now.mono;
        let mut holder = self.holder.take().unwrap();
        if holder.place.key.is_some() {
            let ends = self.ends(holder.promised, now, now);
            holder.runs = holder.runs.or(Some((now, ends)));
            self.holder = Some(holder);
        } else if holder.place.known {
            let mut place = holder.place;
            place.durable = true;
            place.told_by = None;
            place.seen = now;
            let index = self
                .queue
                .iter()
                .filter(|(n, _)| *n < holder.arrival)
                .count();
            self.queue.insert(index, (holder.arrival, place));
        }
    }
}

enum Who {
    Nobody,
    Holder,
    Waiting(usize),
    Dead(Death),
}
