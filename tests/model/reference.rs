//! The contract's model once more, as simply as it can be said: a list of places in order of arrival that
//! is walked from its start for every question. Slow, without an index, without a timer. What the core
//! answers is compared with what this answers.

use std::collections::BTreeMap;

use small_resource_server::lock::command::{Death, Grant, HolderView};
use small_resource_server::lock::rows::{ENDED_MS, Forced};
use small_resource_server::lock::{
    Answer, Command, EndReason, FencingToken, IdempotencyKey, LockOptions, LockRequest, Millis,
    Mode, Now, Owner, PresentedTicket, Refusal, RequestId, ResourceOptions, Terms, Ticket,
    TicketId, Ttl, WaitPolicy, WallMillis,
};

pub type Answers = BTreeMap<RequestId, Answer>;

#[derive(Clone, Debug)]
struct Place {
    ticket: Ticket,
    owner: Option<Owner>,
    ttl: Option<Ttl>,
    mode: Mode,
    key: Option<(IdempotencyKey, Option<Ttl>, Mode)>,
    queued_at: Option<WallMillis>,
    /// The client presented it, or can find it by its key.
    known: bool,
    /// The answer that told of it, while that may still prove lost.
    told_by: Option<RequestId>,
    /// An answer with it was given, or it is known.
    durable: bool,
    /// Of a write that waits.
    ticketless_write: bool,
    open: Vec<(RequestId, Millis, Option<Wait>)>,
    seen: Millis,
    /// The `seen` after which it is known to have gone far.
    went_far_from: Option<Millis>,
}

#[derive(Clone, Debug)]
struct Wait {
    until: Option<Millis>,
    writes: bool,
    /// It leaves its place when the wait is over.
    leaves: bool,
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
    promised: Option<Ttl>,
    /// Requests that were told of the grant; empty once the client is known to know.
    telling: Vec<RequestId>,
    /// Since when, and through when.
    runs: Option<(Millis, Option<Millis>)>,
    seen: Option<Millis>,
}

#[derive(Clone, Debug)]
struct EndedTicket {
    ticket: Ticket,
    reason: EndReason,
    at: Millis,
    owner: Option<Owner>,
    key: Option<(IdempotencyKey, Option<Ttl>, Mode)>,
    forced: Option<Forced>,
}

#[derive(Clone, Debug)]
pub struct Model {
    terms: Terms,
    options: ResourceOptions,
    token: FencingToken,
    /// In the order of their grants.
    holders: Vec<Holder>,
    reserved: Option<Ticket>,
    delay_until: Option<Millis>,
    /// In order of arrival, each with its arrival number.
    queue: Vec<(u64, Place)>,
    arrivals: u64,
    ended: Vec<EndedTicket>,
    now: Now,
    answers: Answers,
}

/// What happens by itself, in the order in which it counts at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    LeaseOver(FencingToken),
    DelayOver,
    WentFar(Ticket),
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
    pub fn new(terms: Terms, options: ResourceOptions, token_floor: FencingToken) -> Model {
        Model {
            terms,
            options,
            token: token_floor,
            holders: Vec::new(),
            reserved: None,
            delay_until: None,
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
        !self.holders.is_empty() || self.is_reserved()
    }

    fn is_reserved(&self) -> bool {
        self.reserved.is_some() || self.delay_until.is_some()
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
        for mut holder in std::mem::take(&mut self.holders) {
            holder.place.known = true;
            holder.place.ttl = holder.promised;
            holder.telling.clear();
            holder.seen = None;
            let until = self.ends(holder.promised, leases_from, leases_from);
            holder.runs = Some((leases_from, until));
            self.holders.push(holder);
        }
        if self.delay_until.is_some() {
            self.delay_until = Some(now.mono + self.options.lock_delay_ms());
        }
        self.remember_ended_from(now);
        self.reserved = None;
        self.settle(now.mono);
    }

    /// The rows of ended tickets were read from the store, which does not say when they ended.
    pub fn remember_ended_from(&mut self, now: Now) {
        for ended in &mut self.ended {
            ended.at = now.mono;
        }
    }

    // ---- time -------------------------------------------------------------------------------------

    fn near(&self, place: &Place, at: Millis) -> bool {
        !place.open.is_empty() || at < place.seen + self.terms.claim_ms
    }

    fn dues(&self) -> Vec<(Millis, Due)> {
        let mut dues = Vec::new();
        for holder in &self.holders {
            if let Some((_, Some(through))) = holder.runs {
                dues.push((through + 1, Due::LeaseOver(holder.token)));
            }
        }
        dues.extend(self.delay_until.map(|at| (at, Due::DelayOver)));
        for (_, place) in &self.queue {
            if place.open.is_empty() {
                let far = place.seen + self.terms.claim_ms;
                if place.went_far_from != Some(place.seen) {
                    dues.push((far, Due::WentFar(place.ticket)));
                }
                let drop = (place.seen + self.terms.ticket_ttl_ms).max(far);
                dues.push((drop, Due::Dropped(place.ticket)));
            }
            for (request, _, wait) in &place.open {
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
                Due::LeaseOver(token) => self.end_lease(token, EndReason::Expired, None),
                Due::DelayOver => self.delay_until = None,
                Due::WentFar(ticket) => {
                    let index = self.with_ticket(ticket).unwrap();
                    let place = &mut self.queue[index].1;
                    place.went_far_from = Some(place.seen);
                    if self.reserved == Some(ticket) {
                        self.reserved = None;
                    }
                }
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
        let wait = open.2.take().unwrap();
        if !wait.writes && !wait.leaves {
            return self.tell_place(request, index, wait.ended);
        }
        place.open.retain(|o| o.0 != request);
        place.seen = self.now.mono;
        let place = place.clone();
        if place.ticketless_write || (wait.leaves && place.open.is_empty()) {
            if place.key.is_some() {
                self.remember(&place, EndReason::Released, None);
            }
            self.remove(place.ticket);
        }
        self.answer_locked(request, None);
    }

    fn stands_beside(&self, mode: Mode) -> bool {
        let all = |mode| self.holders.iter().all(|h| h.place.mode == mode);
        let room = match mode {
            Mode::Shared => all(Mode::Shared),
            Mode::Exclusive => {
                all(Mode::Exclusive) && self.holders.len() < usize::from(self.options.slots)
            }
        };
        room && self.delay_until.is_none()
    }

    fn could_have(&self, place: &Place) -> bool {
        match place.ticketless_write {
            true => self.holders.is_empty() && self.delay_until.is_none(),
            false => self.stands_beside(place.mode),
        }
    }

    fn first_near(&self, at: Millis) -> Option<usize> {
        (0..self.queue.len()).find(|i| self.near(&self.queue[*i].1, at))
    }

    /// Whoever is next in line gets what it can have.
    fn settle(&mut self, at: Millis) {
        loop {
            if let Some(index) = self.reserved.and_then(|ticket| self.with_ticket(ticket)) {
                if self.could_have(&self.queue[index].1) {
                    return;
                }
                self.reserved = None;
            }
            let Some(index) = self.first_near(at) else {
                return;
            };
            let place = &self.queue[index].1;
            if !self.could_have(place) {
                return;
            }
            if place.open.iter().all(|(.., wait)| wait.is_none()) {
                self.reserved = Some(place.ticket);
            } else if place.ticketless_write {
                let (_, place) = self.queue.remove(index);
                for (request, ..) in place.open {
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

    fn ttl(&self, own: Option<Ttl>) -> Ttl {
        match own {
            Some(ttl) => ttl,
            None if self.terms.profile.timeout_is_lease_ttl() => self.options.timeout.into(),
            None => Ttl::ZERO,
        }
    }

    fn ends(&self, own: Option<Ttl>, since: Millis, now: Millis) -> Option<Millis> {
        let ttl = self.ttl(own).limit_ms().map(|ms| now + ms);
        let max = self.terms.lease_seconds_max.limit_ms();
        match (ttl, max.map(|ms| since + ms)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn view(&self, holder: &Holder) -> HolderView {
        let mono = self.now.mono;
        let ends = match holder.runs {
            Some((_, ends)) => ends,
            None => self.ends(holder.promised, mono, mono),
        };
        let wall = |at: Millis| (self.now.wall + at).saturating_sub(mono);
        HolderView {
            owner: holder.place.owner.clone(),
            reason: None,
            mode: holder.place.mode,
            acquired_at: holder.acquired_at,
            expires_at: ends.map(wall),
            expires_in_ms: ends.map(|at| at.saturating_sub(mono)),
            token: holder.token,
            queued_at: holder.place.queued_at,
            renewed_at: holder.seen.map(wall),
            client: None,
        }
    }

    fn told_ttl(&self, holder: &Holder) -> Ttl {
        let own = self.ttl(holder.place.ttl);
        let Some(max) = self.terms.lease_seconds_max.limit_ms() else {
            return own;
        };
        let left = match holder.runs {
            Some((since, _)) => (since + max - self.now.mono).max(1),
            None => max,
        };
        let left = Ttl::from_millis(left).unwrap();
        if own == Ttl::ZERO {
            left
        } else {
            own.min(left)
        }
    }

    fn answer_locked(&mut self, request: RequestId, except: Option<FencingToken>) {
        let mut others = self.holders.iter().filter(|h| Some(h.token) != except);
        let by = Refusal::Locked {
            holder: others.next().map(|h| Box::new(self.view(h))),
            reserved: self.is_reserved(),
        };
        self.answer(request, Answer::Refused(by));
    }

    fn at(&self, token: FencingToken) -> usize {
        self.holders.iter().position(|h| h.token == token).unwrap()
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

    fn tell_grant(
        &mut self,
        request: RequestId,
        token: FencingToken,
        waited: Option<Millis>,
        ended: Death,
    ) {
        let holder = &self.holders[self.at(token)];
        let grant = Grant {
            ticket: holder.place.ticket,
            holder: self.view(holder),
            ttl: self.told_ttl(holder),
            waited_ms: waited.unwrap_or(0),
            new: waited.is_some(),
            ended,
        };
        self.answer(request, Answer::Granted(Box::new(grant)));
    }

    /// The place at `index` becomes a lease; `asking` asked for it just now.
    fn grant(&mut self, index: usize, asking: Option<(RequestId, Millis, Death)>) {
        let (arrival, mut place) = self.queue.remove(index);
        self.reserved = None;
        self.token = self.token.next();
        let now = self.now;
        let open: Vec<(RequestId, Millis, Wait)> = std::mem::take(&mut place.open)
            .into_iter()
            .filter_map(|(request, since, wait)| Some((request, since, wait?)))
            .collect();
        let asked = asking.iter().map(|(request, ..)| *request);
        let token = self.token;
        self.holders.push(Holder {
            arrival,
            token,
            acquired_at: now.wall,
            promised: place.ttl,
            telling: asked.chain(open.iter().map(|o| o.0)).collect(),
            runs: None,
            seen: Some(now.mono),
            place,
        });
        if let Some((request, since, ended)) = asking {
            self.tell_grant(request, token, Some(now.mono - since), ended);
        }
        for (request, since, wait) in open.iter().filter(|(.., wait)| !wait.writes) {
            self.tell_grant(*request, token, Some(now.mono - since), wait.ended);
        }
        for (request, _, wait) in &open {
            if wait.writes {
                self.let_write(*request, token);
            }
        }
    }

    fn let_write(&mut self, request: RequestId, token: FencingToken) {
        let token = Some(token);
        self.answer(request, Answer::Writable { token });
    }

    fn end_lease(&mut self, token: FencingToken, reason: EndReason, forced: Option<&Forced>) {
        let holder = self.holders.remove(self.at(token));
        self.remember(&holder.place, reason, forced);
        if reason != EndReason::Released && self.options.lock_delay > 0 {
            self.delay_until = Some(self.now.mono + self.options.lock_delay_ms());
        }
    }

    fn remember(&mut self, place: &Place, reason: EndReason, forced: Option<&Forced>) {
        self.ended.push(EndedTicket {
            ticket: place.ticket,
            reason,
            at: self.now.mono,
            owner: place.owner.clone(),
            key: place.key.clone(),
            forced: forced.cloned(),
        });
        if self.ended.len() > 64 {
            self.ended.remove(0);
        }
    }

    /// The holder showed itself; `telling` is a request whose answer tells it that it holds.
    fn show_holder(
        &mut self,
        token: FencingToken,
        ttl: Option<Ttl>,
        exact: bool,
        telling: Option<RequestId>,
    ) {
        let now = self.now.mono;
        let index = self.at(token);
        let mut holder = self.holders[index].clone();
        holder.place.known = true;
        holder.seen = Some(now);
        if ttl.is_some() {
            holder.place.ttl = ttl;
        }
        let (since, old) = match holder.runs {
            Some(runs) => runs,
            None => (now, self.ends(holder.promised, now, now)),
        };
        let new = self.ends(holder.place.ttl, since, now);
        let ends = if exact { new } else { later(old, new) };
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
        self.holders[index] = holder;
    }

    /// A sign of life that does not tell the holder that it holds.
    fn touch_holder(&mut self, token: FencingToken) {
        let index = self.at(token);
        if self.holders[index].runs.is_some() {
            return self.show_holder(token, None, false, None);
        }
        self.holders[index].place.known = true;
        self.holders[index].seen = Some(self.now.mono);
    }

    fn show_place(&mut self, index: usize, ttl: Option<Ttl>) {
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
            Command::Acquire(_) => self.acquire(command),
            Command::Touch { request, presented } => {
                let live = match self.who(*presented) {
                    Who::Holder(token) => {
                        self.touch_holder(token);
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
                exact,
            } => {
                let answer = match self.who(*presented) {
                    Who::Holder(token) => {
                        self.show_holder(token, *ttl, *exact, None);
                        let holder = &self.holders[self.at(token)];
                        let view = self.view(holder);
                        Answer::Renewed {
                            ttl: self.told_ttl(holder),
                            expires_at: view.expires_at,
                            expires_in_ms: view.expires_in_ms,
                            token: view.token,
                        }
                    }
                    Who::Waiting(index) => {
                        self.show_place(index, None);
                        Answer::Refused(Refusal::NotHolder)
                    }
                    Who::Dead(death) => self.dead(*presented, death),
                    Who::Nobody => Answer::Refused(Refusal::TicketMissing),
                };
                self.answer(*request, answer);
            }
            Command::Unlock { request, presented } => self.unlock(*request, *presented),
            Command::ForceUnlock {
                request,
                token,
                forced,
            } => {
                let named = |h: &&Holder| token.is_none_or(|token| token == h.token);
                let ended: Vec<Holder> = self.holders.iter().filter(named).cloned().collect();
                if token.is_some() && ended.is_empty() {
                    return self.answer(*request, Answer::Refused(Refusal::OtherLease));
                }
                let views = ended.iter().map(|h| self.view(h)).collect();
                for holder in ended {
                    self.end_lease(holder.token, EndReason::ForcedOff, Some(forced));
                }
                self.answer(*request, Answer::Forced(views));
            }
            Command::RemoveWaiter {
                request,
                waiter,
                forced,
            } => self.remove_waiter(*request, *waiter, forced),
            Command::Delete { request, presented } => self.delete(*request, *presented),
            Command::Vanished { request } => self.vanished(*request),
            Command::Tick => {}
        }
    }

    /// What a dead ticket is told.
    fn dead(&self, presented: PresentedTicket, death: Death) -> Answer {
        let ended = presented.ticket().and_then(|ticket| self.ended(ticket));
        match ended.and_then(|ended| ended.forced.clone()) {
            Some(forced) => Answer::Refused(Refusal::DeadByForce(Box::new(forced))),
            None => Answer::Refused(Refusal::Dead(death)),
        }
    }

    fn remembers(&self, ended: &EndedTicket) -> bool {
        self.now.mono <= ended.at + ENDED_MS
    }

    fn ended(&self, ticket: Ticket) -> Option<&EndedTicket> {
        let mut ended = self.ended.iter().rev();
        ended.find(|ended| ended.ticket == ticket && self.remembers(ended))
    }

    fn who(&self, presented: PresentedTicket) -> Who {
        let ticket = match presented {
            PresentedTicket::Absent => return Who::Nobody,
            PresentedTicket::Malformed => return Who::Dead(None),
            PresentedTicket::Ticket(ticket) => ticket,
        };
        if let Some(holder) = self.holders.iter().find(|h| h.place.ticket == ticket) {
            return Who::Holder(holder.token);
        }
        if let Some(index) = self.with_ticket(ticket) {
            return Who::Waiting(index);
        }
        Who::Dead(self.ended(ticket).map(|ended| ended.reason))
    }

    fn acquire(&mut self, command: &Command) {
        let Command::Acquire(LockRequest {
            request,
            presented,
            fresh,
            options,
            policy,
        }) = command
        else {
            unreachable!()
        };
        let (request, now) = (*request, self.now.mono);
        let came = self.come_again(request);
        let since = came.map_or(now, |(_, since)| since);
        let loading = *policy == WaitPolicy::Loading;
        if options.mode == Some(Mode::Shared) && self.options.slots > 1 {
            return self.answer(request, Answer::Refused(Refusal::ModeNotOffered));
        }
        let ended = match self.who(*presented) {
            Who::Holder(token) if loading => return self.touch_holder(token),
            Who::Holder(token) => {
                return self.keep(token, request, options.ttl, options.mode, None);
            }
            Who::Waiting(index) => {
                let place = &self.queue[index].1;
                let differs = options.mode.is_some_and(|mode| mode != place.mode);
                let leaves = matches!(policy, WaitPolicy::UntilThenLeave(_));
                if differs || leaves {
                    self.show_place(index, None);
                    return self.answer(
                        request,
                        match differs {
                            true => Answer::Refused(Refusal::ModeDiffers),
                            false => Answer::Refused(Refusal::WaitsAlready),
                        },
                    );
                }
                return self.ask(index, (request, since), options.ttl, *policy, None);
            }
            Who::Dead(death) => death,
            Who::Nobody => None,
        };
        if let Some(index) = came.and_then(|(ticket, _)| self.with_ticket(ticket)) {
            let place = &mut self.queue[index].1;
            if !loading && place.key.is_some() {
                place.known = true;
                place.told_by = None;
                place.durable = true;
            }
            return self.queue_up(index, (request, since), *policy, ended);
        }
        let asked = |key: &(IdempotencyKey, Option<Ttl>, Mode), owner: &Option<Owner>| {
            *owner == options.owner
                && key.1 == options.ttl
                && key.2 == options.mode.unwrap_or_default()
        };
        let is_key = |key: &Option<(IdempotencyKey, Option<Ttl>, Mode)>| {
            options.key.is_some() && key.as_ref().map(|k| &k.0) == options.key.as_ref()
        };
        if let Some(holder) = self.holders.iter().find(|h| is_key(&h.place.key)) {
            if !asked(holder.place.key.as_ref().unwrap(), &holder.place.owner) {
                return self.answer(request, Answer::Refused(Refusal::KeyReused));
            }
            let token = holder.token;
            if loading {
                return self.touch_holder(token);
            }
            return self.keep(token, request, None, None, ended);
        }
        if let Some(index) = self.queue.iter().position(|(_, p)| is_key(&p.key)) {
            let place = &self.queue[index].1;
            if !asked(place.key.as_ref().unwrap(), &place.owner) {
                return self.answer(request, Answer::Refused(Refusal::KeyReused));
            }
            return self.ask(index, (request, since), None, *policy, ended);
        }
        let late = self
            .ended
            .iter()
            .find(|e| is_key(&e.key) && self.remembers(e));
        if let Some(late) = late {
            let answer = match asked(late.key.as_ref().unwrap(), &late.owner) {
                true => self.dead(PresentedTicket::Ticket(late.ticket), Some(late.reason)),
                false => Answer::Refused(Refusal::KeyReused),
            };
            return self.answer(request, answer);
        }
        let mode = options.mode.unwrap_or_default();
        let open = self.stands_beside(mode) && self.first_near(now).is_none();
        if !open && *policy == WaitPolicy::Never {
            return self.answer_locked(request, None);
        }
        if !open && self.waiting() >= self.terms.waiters_max {
            return self.answer(request, Answer::Refused(Refusal::TooManyWaiters));
        }
        let index = self.arrive(*fresh, false, options, !open || loading);
        if loading {
            // Gone with its request, if there turns out to be nothing to wait for.
            let place = &mut self.queue[index].1;
            place.known = false;
            place.durable = false;
        }
        self.queue_up(index, (request, since), *policy, ended);
    }

    /// A request that comes again, now that what it needs is loaded: it was open on this place, since then.
    fn come_again(&mut self, request: RequestId) -> Option<(Ticket, Millis)> {
        let now = self.now.mono;
        let index = self.with_request(request)?;
        let place = &mut self.queue[index].1;
        let at = place.open.iter().position(|open| open.0 == request)?;
        let (_, since, _) = place.open.remove(at);
        place.seen = now;
        Some((place.ticket, since))
    }

    fn keep(
        &mut self,
        token: FencingToken,
        request: RequestId,
        ttl: Option<Ttl>,
        mode: Option<Mode>,
        ended: Death,
    ) {
        let own = self.holders[self.at(token)].place.mode;
        let changes = mode.filter(|mode| *mode != own);
        if changes == Some(Mode::Exclusive)
            && (self.holders.len() > 1 || self.delay_until.is_some())
        {
            self.touch_holder(token);
            return self.answer_locked(request, Some(token));
        }
        self.show_holder(token, ttl, false, Some(request));
        let index = self.at(token);
        if let Some(mode) = changes {
            self.holders[index].place.mode = mode;
        }
        if changes == Some(Mode::Exclusive) {
            self.token = self.token.next();
            self.holders[index].token = self.token;
            self.reserved = None;
        }
        let token = self.holders[index].token;
        self.tell_grant(request, token, None, ended);
    }

    fn arrive(
        &mut self,
        ticket: Ticket,
        writes: bool,
        options: &LockOptions,
        queues: bool,
    ) -> usize {
        self.arrivals += 1;
        let mode = options.mode.unwrap_or_default();
        let key = options.key.clone().map(|key| (key, options.ttl, mode));
        let place = Place {
            ticket,
            owner: options.owner.clone(),
            ttl: options.ttl,
            mode,
            queued_at: queues.then_some(self.now.wall),
            known: key.is_some(),
            told_by: None,
            durable: key.is_some(),
            key,
            ticketless_write: writes,
            open: Vec::new(),
            seen: self.now.mono,
            went_far_from: None,
        };
        self.queue.push((self.arrivals, place));
        self.queue.len() - 1
    }

    fn ask(
        &mut self,
        index: usize,
        request: (RequestId, Millis),
        ttl: Option<Ttl>,
        policy: WaitPolicy,
        ended: Death,
    ) {
        self.show_place(index, ttl);
        self.queue_up(index, request, policy, ended);
    }

    fn is_open_to(&self, index: usize) -> bool {
        let place = &self.queue[index].1;
        let first = self.first_near(self.now.mono);
        let next = match self.reserved {
            Some(reserved) => reserved == place.ticket,
            None => first == Some(index),
        };
        next && self.could_have(place)
    }

    fn queue_up(
        &mut self,
        index: usize,
        (request, since): (RequestId, Millis),
        policy: WaitPolicy,
        ended: Death,
    ) {
        if policy != WaitPolicy::Loading && self.is_open_to(index) {
            return self.grant(index, Some((request, since, ended)));
        }
        let wait = |until, leaves| Wait {
            until,
            writes: false,
            leaves,
            ended,
        };
        let wait = match policy {
            WaitPolicy::Never => return self.answer_locked(request, None),
            WaitPolicy::Poll | WaitPolicy::Loading => None,
            WaitPolicy::Until(at) => Some(wait(Some(at), false)),
            WaitPolicy::UntilThenLeave(at) => Some(wait(Some(at), true)),
            WaitPolicy::Forever => Some(wait(None, false)),
        };
        let tells = wait.is_none() && policy != WaitPolicy::Loading;
        self.queue[index].1.open.push((request, since, wait));
        if tells {
            self.tell_place(request, index, ended);
        }
    }

    fn write(&mut self, command: &Command) {
        let Command::Write {
            request,
            presented,
            fresh,
            policy,
        } = command
        else {
            unreachable!()
        };
        let (profile, now) = (self.terms.profile, self.now.mono);
        let came = self.come_again(*request);
        let now = came.map_or(now, |(_, since)| since);
        let loading = *policy == WaitPolicy::Loading;
        let until = match policy {
            _ if !profile.refused_write_waits() => None,
            WaitPolicy::Never | WaitPolicy::Poll | WaitPolicy::Loading => None,
            WaitPolicy::Until(at) | WaitPolicy::UntilThenLeave(at) => Some(Some(*at)),
            WaitPolicy::Forever => Some(None),
        };
        let wait = |until| Wait {
            until,
            writes: true,
            leaves: false,
            ended: None,
        };
        let came = came.and_then(|(ticket, _)| self.with_ticket(ticket));
        match self.who(*presented) {
            Who::Holder(token) if loading => self.touch_holder(token),
            Who::Holder(token) if self.holders[self.at(token)].place.mode == Mode::Shared => {
                self.touch_holder(token);
                self.answer(*request, Answer::Refused(Refusal::NotExclusive));
            }
            Who::Holder(token) => {
                self.show_holder(token, None, false, Some(*request));
                self.let_write(*request, token);
            }
            Who::Waiting(index) => {
                self.show_place(index, None);
                if loading {
                    self.queue[index].1.open.push((*request, now, None));
                } else if self.queue[index].1.mode == Mode::Shared {
                    self.answer(*request, Answer::Refused(Refusal::NotExclusive));
                } else if self.is_open_to(index) {
                    let place = &mut self.queue[index].1;
                    place.open.push((*request, now, Some(wait(None))));
                    self.grant(index, None);
                } else if let Some(until) = until {
                    let place = &mut self.queue[index].1;
                    place.open.push((*request, now, Some(wait(until))));
                } else {
                    self.answer_locked(*request, None);
                }
            }
            Who::Dead(death) if !self.writes_as_nobody(death) => {
                let answer = self.dead(*presented, death);
                self.answer(*request, answer);
            }
            Who::Dead(_) | Who::Nobody if came.is_some() => {
                let index = came.unwrap();
                let ticket = self.queue[index].1.ticket;
                if !loading && self.is_open_to(index) {
                    self.remove(ticket);
                    self.answer(*request, Answer::Writable { token: None });
                } else if loading || until.is_some() {
                    let parked = until.filter(|_| !loading).map(wait);
                    self.queue[index].1.open.push((*request, now, parked));
                } else {
                    self.remove(ticket);
                    self.answer_locked(*request, None);
                }
            }
            Who::Dead(_) | Who::Nobody
                if loading && (!self.is_locked() || profile.refused_write_waits()) =>
            {
                if self.is_locked() && self.waiting() >= self.terms.waiters_max {
                    return self.answer(*request, Answer::Refused(Refusal::TooManyWaiters));
                }
                let index = self.arrive(*fresh, true, &LockOptions::default(), false);
                self.queue[index].1.open.push((*request, now, None));
            }
            Who::Dead(_) | Who::Nobody if !self.is_locked() => {
                self.answer(*request, Answer::Writable { token: None });
            }
            Who::Dead(_) | Who::Nobody => match until {
                None => self.answer_locked(*request, None),
                Some(_) if self.waiting() >= self.terms.waiters_max => {
                    self.answer(*request, Answer::Refused(Refusal::TooManyWaiters));
                }
                Some(until) => {
                    let index = self.arrive(*fresh, true, &LockOptions::default(), false);
                    let place = &mut self.queue[index].1;
                    place.open.push((*request, now, Some(wait(until))));
                }
            },
        }
    }

    fn writes_as_nobody(&self, death: Death) -> bool {
        self.terms.profile.spent_ticket_writes_as_nobody()
            && (death.is_none() || death == Some(EndReason::Released))
    }

    fn unlock(&mut self, request: RequestId, presented: PresentedTicket) {
        let answer = match self.who(presented) {
            Who::Holder(token) => {
                self.end_lease(token, EndReason::Released, None);
                Answer::Unlocked { dead: None }
            }
            Who::Waiting(index) => {
                let place = self.queue[index].1.clone();
                self.remove(place.ticket);
                self.remember(&place, EndReason::Released, None);
                for (waiting, ..) in place.open.iter().filter(|(.., wait)| wait.is_some()) {
                    self.answer(
                        *waiting,
                        Answer::Refused(Refusal::Dead(Some(EndReason::Released))),
                    );
                }
                Answer::Unlocked { dead: None }
            }
            Who::Dead(death) if self.terms.profile.dead_unlock_succeeds() => {
                Answer::Unlocked { dead: Some(death) }
            }
            Who::Dead(Some(EndReason::Released)) => Answer::Unlocked { dead: None },
            Who::Dead(death) => self.dead(presented, death),
            Who::Nobody => Answer::Refused(Refusal::TicketMissing),
        };
        self.answer(request, answer);
    }

    fn remove_waiter(&mut self, request: RequestId, waiter: TicketId, forced: &Forced) {
        let told = |place: &&Place| !place.ticketless_write && place.ticket.id() == waiter;
        let Some(place) = self
            .queue
            .iter()
            .map(|(_, place)| place)
            .find(told)
            .cloned()
        else {
            let forced = |e: &&EndedTicket| e.reason == EndReason::ForcedOff && self.remembers(e);
            let mut forced = self.ended.iter().filter(forced);
            let answer = match forced.any(|ended| ended.ticket.id() == waiter) {
                true => Answer::WaiterRemoved(false),
                false => Answer::Refused(Refusal::NotWaiting),
            };
            return self.answer(request, answer);
        };
        self.remove(place.ticket);
        self.remember(&place, EndReason::ForcedOff, Some(forced));
        for (waiting, ..) in place.open.iter().filter(|(.., wait)| wait.is_some()) {
            self.answer(
                *waiting,
                Answer::Refused(Refusal::DeadByForce(Box::new(forced.clone()))),
            );
        }
        self.answer(request, Answer::WaiterRemoved(true));
    }

    fn delete(&mut self, request: RequestId, presented: PresentedTicket) {
        let allowed = match self.who(presented) {
            Who::Holder(token) if self.holders[self.at(token)].place.mode == Mode::Shared => {
                self.touch_holder(token);
                return self.answer(request, Answer::Refused(Refusal::NotExclusive));
            }
            Who::Holder(_) => true,
            Who::Waiting(index) => {
                self.show_place(index, None);
                if self.queue[index].1.mode == Mode::Shared {
                    return self.answer(request, Answer::Refused(Refusal::NotExclusive));
                }
                self.is_open_to(index)
            }
            Who::Dead(death) if !self.writes_as_nobody(death) => {
                let answer = self.dead(presented, death);
                return self.answer(request, answer);
            }
            Who::Dead(_) | Who::Nobody => !self.is_locked(),
        };
        if !allowed {
            return self.answer_locked(request, None);
        }
        for (_, place) in std::mem::take(&mut self.queue) {
            for (waiting, ..) in place.open.iter().filter(|(.., wait)| wait.is_some()) {
                self.answer(*waiting, Answer::Refused(Refusal::NoResource));
            }
        }
        self.holders.clear();
        self.reserved = None;
        self.delay_until = None;
        self.answer(request, Answer::Deletable);
    }

    fn telling(&self, request: RequestId) -> Option<usize> {
        let telling = |holder: &Holder| holder.telling.contains(&request);
        self.holders.iter().position(telling)
    }

    pub fn delivered(&mut self, now: Now, request: RequestId) {
        self.now = now;
        let now = now.mono;
        if let Some(index) = self.telling(request)
            && self.holders[index].runs.is_none()
        {
            let ends = self.ends(self.holders[index].promised, now, now);
            self.holders[index].runs = Some((now, ends));
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
        if let Some(index) = self.telling(request) {
            let holder = &mut self.holders[index];
            holder.telling.retain(|told| *told != request);
            if holder.telling.is_empty() {
                self.take_back(index);
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

    fn take_back(&mut self, index: usize) {
        let now = self.now;
        if self.holders[index].place.key.is_some() {
            let ends = self.ends(self.holders[index].promised, now.mono, now.mono);
            let holder = &mut self.holders[index];
            holder.runs = holder.runs.or(Some((now.mono, ends)));
            return;
        }
        let holder = self.holders.remove(index);
        if holder.place.known {
            let mut place = holder.place;
            place.durable = true;
            place.told_by = None;
            place.seen = now.mono;
            place.queued_at.get_or_insert(now.wall);
            let before = self.queue.iter().filter(|(n, _)| *n < holder.arrival);
            let index = before.count();
            self.queue.insert(index, (holder.arrival, place));
        }
    }
}

enum Who {
    Nobody,
    Holder(FencingToken),
    Waiting(usize),
    Dead(Death),
}
