//! Instances that believe what the test tells them of each other.

use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use actix_server::{Server, ServerHandle};
use small_resource_server::app::start_actors;
use small_resource_server::cluster::client::ClusterClient;
use small_resource_server::cluster::serve::{listen_to_peers, start_monitoring};
use small_resource_server::lock::{
    FencingToken, LockOptions, PresentedTicket, ResourceName, ResourceOptions,
};
use small_resource_server::registry::actor::Registry;
use small_resource_server::registry::client::Router;
use small_resource_server::resource::messages::{Op, Reply, Wait};
use small_resource_server::shared::caller::Caller;
use small_resource_server::shared::members::{Reachability, View};
use small_resource_server::shared::registry_notice::RegistryNotice;
use small_resource_server::shared::server_state::{ServerSettings, ServerState};
use small_resource_server::store::members::{
    InstanceId, Member, MemberState, Members, SLOTS, Slot,
};
use small_resource_server::store::memory::MemoryStore;
use small_resource_server::store::{ListQuery, PeerAddress};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::settings::server_settings;

pub const DEADLINE: Duration = Duration::from_secs(60);
pub const LEASE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(5);

fn settings() -> ServerSettings {
    ServerSettings {
        store_timeout_ms: 60_000,
        listing_timeout_ms: 60_000,
        // Whatever changes hands is read from the store by the next owner.
        retire_ms: 600_000,
        ..server_settings()
    }
}

pub fn name(text: &str) -> ResourceName {
    ResourceName::parse(text).unwrap()
}

pub fn create() -> Op {
    Op::Create {
        options: ResourceOptions::default(),
    }
}

pub fn acquire(wait: Wait) -> Op {
    Op::Acquire {
        selector: None,
        presented: PresentedTicket::Absent,
        options: LockOptions::default(),
        wait,
        create: false,
    }
}

/// Nobody listens there.
pub fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

pub struct Instance {
    pub server: Arc<ServerState>,
    registry: Addr<Registry>,
    pub cluster: Rc<ClusterClient>,
    _monitoring: Arbiter,
    _answers: ServerHandle,
}

impl Instance {
    async fn start(store: Arc<MemoryStore>, listener: TcpListener) -> Instance {
        let server = Arc::new(ServerState::new(settings(), store));
        server.slots.share();
        let (writing, finding) = (Arbiter::current(), Arbiter::current());
        let (persistence, registry, first_open) = start_actors(&server, &writing, &finding);
        first_open.await.unwrap().unwrap();
        let router = {
            let (server, registry) = (server.clone(), registry.clone());
            move || Router::new(server.clone(), registry.clone(), persistence.clone())
        };
        let builder = Server::build().workers(1).disable_signals();
        let answering = listen_to_peers(builder, listener, None, LEASE, router.clone());
        let answering = answering.unwrap().run();
        let answers = answering.handle();
        actix_rt::spawn(answering);
        Instance {
            _monitoring: start_monitoring(&server, router.clone(), LEASE),
            _answers: answers,
            cluster: Rc::new(ClusterClient::new(router(), Some(LEASE))),
            registry,
            server,
        }
    }

    pub fn view(&self) -> View {
        self.server.members.borrow().clone()
    }

    pub fn gain(&self, name: &ResourceName) {
        let now = self.server.mono();
        self.server.slots.gain(Slot::of(name), now);
    }

    pub fn lose(&self, name: &ResourceName) {
        self.server.slots.lose(Slot::of(name));
    }

    /// The names on all pages of so many, in the order in which they come.
    pub async fn all_pages(&self, limit: usize, held: Option<bool>) -> Vec<String> {
        let mut query = ListQuery {
            limit,
            held,
            ..ListQuery::default()
        };
        let mut names = Vec::new();
        loop {
            let page = self.cluster.page(query.clone()).await.unwrap();
            assert!(page.resources.len() <= limit);
            names.extend(page.resources.iter().map(|listed| listed.name.to_string()));
            match page.next {
                Some(next) => query.after = Some(next.to_string()),
                None => return names,
            }
        }
    }
}

pub struct Group {
    instances: Vec<Instance>,
    /// As the store has it; `me` is nobody.
    members: RefCell<Members>,
}

fn id(number: usize) -> InstanceId {
    [number as u8 + 1; 16]
}

impl Group {
    /// So many instances, to which the slots belong in turn.
    pub async fn start(count: usize) -> Group {
        let store = Arc::new(MemoryStore::default());
        let (mut instances, mut members) = (Vec::new(), Vec::new());
        for number in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap().to_string();
            members.push(Member {
                id: id(number),
                state: MemberState::Serves,
                peer: Some(PeerAddress {
                    address,
                    is_tls: false,
                    secret: b"secret".to_vec(),
                }),
                heartbeat: 1,
                version: String::new(),
            });
            instances.push(Instance::start(store.clone(), listener).await);
        }
        let members = RefCell::new(Members {
            me: [0; 16],
            members,
            owners: (0..SLOTS).map(|slot| id(slot % count)).collect(),
            token_floor: FencingToken(0),
            recorded_profile: None,
        });
        let group = Group { instances, members };
        for slot in Slot::all() {
            let owner = group.at(slot.number() % count);
            owner.server.slots.gain(slot, 0);
        }
        group.see(|_| {});
        group
    }

    pub fn at(&self, number: usize) -> &Instance {
        &self.instances[number]
    }

    /// All read the store, which was changed like this.
    pub fn see(&self, change: impl FnOnce(&mut Members)) {
        change(&mut self.members.borrow_mut());
        let members = self.members.borrow();
        for (number, instance) in self.instances.iter().enumerate() {
            let me = members.members[number].id;
            let members = members.clone();
            let view = &instance.server.members;
            view.send_if_modified(|view| view.see(Members { me, ..members }));
        }
    }

    /// Whose it is.
    pub fn owner(&self, name: &ResourceName) -> usize {
        let members = self.members.borrow();
        let owner = members.owner(Slot::of(name));
        let is_owner = |member: &Member| member.id == owner;
        members.members.iter().position(is_owner).unwrap()
    }

    /// One that belongs to this instance.
    pub fn name_of(&self, number: usize) -> ResourceName {
        self.another_name_of(number, &name("none"))
    }

    pub fn another_name_of(&self, number: usize, but: &ResourceName) -> ResourceName {
        let mut names = (0..).map(|n| name(&format!("stock:{n}")));
        let is_one =
            |name: &ResourceName| self.owner(name) == number && Slot::of(name) != Slot::of(but);
        names.find(is_one).unwrap()
    }

    /// Answered for no more by whom it belongs to.
    pub async fn leave(&self, owner: usize, name: &ResourceName) {
        let owner = self.at(owner);
        let slot = Slot::of(name);
        owner.server.slots.leave(slot);
        let (left, all_left) = oneshot::channel();
        let slots = vec![slot];
        let leave = RegistryNotice::Leave { slots, left };
        owner.registry.do_send(leave);
        all_left.await.unwrap();
    }

    pub fn give(&self, name: &ResourceName, from: usize, to: usize) {
        self.give_slots(&[Slot::of(name)], from, to);
    }

    pub fn give_all(&self, from: usize, to: usize) {
        let slots = &self.at(from).server.slots;
        let all: Vec<Slot> = Slot::all().filter(|slot| slots.has(*slot)).collect();
        self.give_slots(&all, from, to);
    }

    fn give_slots(&self, slots: &[Slot], from: usize, to: usize) {
        let mut owners = self.members.borrow().owners.to_vec();
        for slot in slots {
            self.at(from).server.slots.lose(*slot);
            self.at(to).server.slots.gain(*slot, 0);
            owners[slot.number()] = self.members.borrow().members[to].id;
        }
        self.see(|all| all.owners = owners.into());
    }

    pub async fn ask(&self, at: usize, name: &ResourceName, op: Op) -> Reply {
        let answered = tokio::time::timeout(DEADLINE, self.begin(at, name, op)).await;
        answered.expect("no answer").unwrap()
    }

    /// Asks without waiting for the answer.
    pub fn begin(&self, at: usize, name: &ResourceName, op: Op) -> JoinHandle<Reply> {
        let (cluster, name) = (self.at(at).cluster.clone(), name.clone());
        actix_rt::spawn(async move { *cluster.ask(&name, &op, Caller::nobody()).await })
    }

    pub async fn until(&self, mut is_so: impl FnMut() -> bool) {
        let wait = async {
            while !is_so() {
                tokio::time::sleep(TICK).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        waited.expect("it does not become so");
    }

    pub async fn until_held(&self, at: usize) {
        let held = &self.at(at).server.metrics.forwarded_requests_held;
        self.until(|| held.get() > 0).await;
    }

    pub async fn until_reached(&self) {
        let is_reached = |instance: &Instance| {
            let view = instance.view();
            let mut others = view.others_alive();
            others.all(|other| view.reachability(other.id) == Reachability::Reached)
        };
        self.until(|| self.instances.iter().all(is_reached)).await;
    }

    async fn waiting(&self, name: &ResourceName) -> usize {
        match self.ask(0, name, Op::DESCRIBE).await {
            Reply::Described(description) => description.waiting,
            other => panic!("{other:?}"),
        }
    }

    /// So many wait for it.
    pub async fn until_waiting(&self, name: &ResourceName, count: usize) {
        let wait = async {
            while self.waiting(name).await != count {
                tokio::time::sleep(TICK).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        waited.expect("others wait, or nobody does");
    }
}
