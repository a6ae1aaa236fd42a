//! The claims about what commits put off and [`Store::checkpoint`] does: nobody sees the difference.

use small_resource_server::lock::{EndReason, FencingToken, Ticket};
use small_resource_server::store::{ListOrder, ListQuery, Snapshot, StoredResource};

use crate::bed::Bed;
use crate::rows::*;

/// More locks than one transaction of checkpointing takes.
const MANY: u64 = 700;

async fn create_many<B: Bed>(bed: &B) -> Vec<Snapshot> {
    let all: Vec<Snapshot> = (0..MANY).map(|i| created(&format!("n{i:03}"))).collect();
    commit(bed.store(), &all).await;
    all
}

/// A change of every kind, the `round`th of its lock.
fn round(resource: &Snapshot, round: u64) -> Snapshot {
    let ticket = |round: u64| u128::from(round) + 1;
    let changes = [
        held(round, full_ticket(ticket(round)), round),
        waiting(plain_ticket(ticket(round))),
        over(ended(round, EndReason::Expired)),
    ];
    let earlier = round.checked_sub(3);
    let gone = earlier.map(|round| left(Ticket::from_bits(ticket(round))));
    changed(resource, changes.into_iter().chain(gone))
}

async fn all_loaded<B: Bed>(bed: &B, all: &[Snapshot]) -> Vec<Option<StoredResource>> {
    let mut loaded = Vec::new();
    for resource in all {
        loaded.push(load(bed.store(), resource.name.as_str()).await);
    }
    loaded
}

/// Locks that were checkpointed, changed since, and changed for the first time since.
async fn half_settled<B: Bed>(bed: &B) -> Vec<Snapshot> {
    let all = create_many(bed).await;
    for n in 0..70 {
        commit(bed.store(), &[round(&all[0], n), round(&all[1], n)]).await;
    }
    let first: Vec<_> = all.iter().skip(2).map(|r| round(r, 0)).collect();
    commit(bed.store(), &first[..first.len() / 2]).await;
    bed.store().checkpoint().await.unwrap();
    commit(bed.store(), &[round(&all[0], 70)]).await;
    commit(bed.store(), &first[first.len() / 2..]).await;
    all
}

pub async fn settling_changes_nothing_that_is_loaded<B: Bed>() {
    let bed = B::fresh().await;
    let all = half_settled(&bed).await;
    let before = all_loaded(&bed, &all).await;
    let hot = before[0].as_ref().unwrap();
    assert_eq!(hot.lock.head.token, FencingToken(70));
    assert_eq!((hot.lock.waiting.len(), hot.lock.ended.len()), (3, 64));
    bed.store().checkpoint().await.unwrap();
    assert_eq!(all_loaded(&bed, &all).await, before);
    bed.store().checkpoint().await.unwrap();
    assert_eq!(all_loaded(&bed, &all).await, before);
}

pub async fn a_load_beside_settling_sees_each_lock_whole<B: Bed>() {
    let bed = B::fresh().await;
    let all = half_settled(&bed).await;
    let before = all_loaded(&bed, &all[..20]).await;
    let checkpointing = async { bed.store().checkpoint().await.unwrap() };
    let loading = async {
        for _ in 0..5 {
            assert_eq!(all_loaded(&bed, &all[..20]).await, before);
        }
    };
    tokio::join!(checkpointing, loading);
}

pub async fn a_crash_between_settling_and_the_next_loses_nothing<B: Bed>() {
    let bed = B::fresh().await;
    let all = half_settled(&bed).await;
    let before = all_loaded(&bed, &all).await;
    let bed = bed.crashed().await;
    assert_eq!(all_loaded(&bed, &all).await, before);
    // And what comes then goes on from there.
    commit(bed.store(), &[round(&all[0], 71)]).await;
    let bed = bed.crashed().await;
    let after = lock_rows(bed.store(), "n000").await;
    assert_eq!(after.head.token, FencingToken(71));
    assert_eq!(after.ended.last(), Some(&ended(71, EndReason::Expired)));
}

pub async fn what_a_removed_resource_had_is_nothing_to_its_successor<B: Bed>() {
    let bed = B::fresh().await;
    let first = created("printer");
    commit(bed.store(), std::slice::from_ref(&first)).await;
    commit(bed.store(), &[round(&first, 5)]).await;
    let mut removed = next(&first);
    removed.remove(FencingToken(5));
    commit(bed.store(), &[removed]).await;
    let second = created("printer");
    commit(bed.store(), std::slice::from_ref(&second)).await;
    commit(bed.store(), &[changed(&second, [free(6)])]).await;
    let bed = bed.crashed().await;
    let found = load(bed.store(), "printer").await.unwrap();
    assert_eq!(found.id, second.id);
    assert_eq!(found.lock.head.token, FencingToken(6));
    assert_eq!((found.lock.waiting, found.lock.ended), (vec![], vec![]));
}

pub async fn a_listing_shows_what_was_settled_last<B: Bed>() {
    let bed = B::fresh().await;
    let all = half_settled(&bed).await;
    let query = |held, order| ListQuery {
        limit: 1000,
        held,
        order,
        ..ListQuery::default()
    };
    let held = list(bed.store(), &query(Some(true), ListOrder::Name)).await;
    assert_eq!(held.len(), all.len());
    let give_back: Vec<_> = all.iter().map(|r| changed(r, [free(80)])).collect();
    commit(bed.store(), &give_back).await;
    let held = list(bed.store(), &query(Some(true), ListOrder::Name)).await;
    assert_eq!(held, vec![]);
    let waiting = list(bed.store(), &query(None, ListOrder::Waiting)).await;
    assert_eq!(waiting[0].waiting, 3);
}
