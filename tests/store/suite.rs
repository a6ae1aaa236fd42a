//! The claims about rows that every store keeps.

use bytes::Bytes;
use small_resource_server::lock::rows::{
    EndedMore, Forced, HeadRow, HolderRow, KeyRow, LockChanges, LockRows, TicketRow,
};
use small_resource_server::lock::{
    EndReason, FencingToken, KeyName, Mode, Owner, Reason, ResourceName, Ticket, Ttl,
};
use small_resource_server::store::history::{LeaseEnd, PastLease, PastLeases};
use small_resource_server::store::{ListQuery, ResourceId, Snapshot, StoredResource};

use crate::bed::Bed;
use crate::rows::*;

pub async fn a_created_resource_is_found_by_its_name<B: Bed>() {
    let bed = B::fresh().await;
    let mut printer = created("printer");
    printer.created = Some(special());
    commit(bed.store(), &[printer.clone()]).await;
    let expected = StoredResource {
        id: printer.id.clone(),
        options: special(),
        lock: LockRows::default(),
        selectors: 0,
    };
    assert_eq!(load(bed.store(), "printer").await, Some(expected));
}

pub async fn an_unknown_name_or_selector_is_nothing<B: Bed>() {
    let bed = B::fresh().await;
    let printer = created("printer");
    commit(bed.store(), std::slice::from_ref(&printer)).await;
    assert_eq!(load(bed.store(), "scanner").await, None);
    assert_eq!(document(bed.store(), &printer.id, "state").await, None);
    let nobody = ResourceId::random();
    assert_eq!(document(bed.store(), &nobody, "state").await, None);
}

pub async fn every_field_of_the_head_row_comes_back<B: Bed>() {
    let bed = B::fresh().await;
    let mut key_without_ttl = plain_ticket(3);
    key_without_ttl.key = full_ticket(0)
        .key
        .map(|key| Box::new(KeyRow { ttl: None, ..*key }));
    let heads = [
        held(u64::MAX, full_ticket(u128::MAX), 1_799_999_999_999),
        held(1, plain_ticket(0), 0),
        held(2, key_without_ttl, 1),
        free(3),
    ];
    for (i, head) in heads.into_iter().enumerate() {
        let text = format!("head {i}");
        let mut snapshot = created(&text);
        snapshot.lock.merge(&head.clone());
        commit(bed.store(), &[snapshot]).await;
        let found = lock_rows(bed.store(), &text).await;
        assert_eq!(Some(found.head), head.head);
    }
}

pub async fn a_head_row_replaces_the_earlier_one_whole<B: Bed>() {
    let bed = B::fresh().await;
    let printer = created("printer");
    commit(bed.store(), std::slice::from_ref(&printer)).await;
    let heads = [
        held(1, full_ticket(1), 7),
        held(2, plain_ticket(2), 8),
        held(2, full_ticket(2), 8),
        free(2),
        held(3, plain_ticket(3), 9),
    ];
    for head in heads {
        commit(bed.store(), &[changed(&printer, [head.clone()])]).await;
        let found = lock_rows(bed.store(), "printer").await;
        assert_eq!(Some(found.head), head.head);
    }
}

pub async fn every_field_of_a_waiting_ticket_comes_back<B: Bed>() {
    let bed = B::fresh().await;
    let mut zero_ttl = plain_ticket(7);
    zero_ttl.ttl = Some(Ttl::ZERO);
    let rows = vec![plain_ticket(0), zero_ttl, full_ticket(u128::MAX)];
    let mut printer = created("printer");
    for row in &rows {
        printer.lock.merge(&waiting(row.clone()));
    }
    commit(bed.store(), &[printer]).await;
    assert_eq!(lock_rows(bed.store(), "printer").await.waiting, rows);
}

pub async fn leases_beside_the_one_in_the_head_row_come_back_and_go<B: Bed>() {
    let bed = B::fresh().await;
    let mut pool = created("pool");
    pool.options = Some(special());
    pool.lock.merge(&held(u64::MAX, full_ticket(1), 7));
    pool.lock.merge(&holding(1, plain_ticket(2)));
    pool.lock.merge(&holding(2, full_ticket(3)));
    commit(bed.store(), std::slice::from_ref(&pool)).await;
    let rows = |found: LockRows| -> Vec<u128> {
        let rows = found.holding.iter();
        rows.map(|row| row.ticket.ticket.bits()).collect()
    };
    let found = lock_rows(bed.store(), "pool").await;
    assert_eq!(found.holding[1].ticket, full_ticket(3));
    assert_eq!(found.holding[1].token.0, 2);
    assert_eq!(rows(found), [2, 3]);
    // A lease in the head row whose token is not the highest, while the lock-delay runs.
    let head = HeadRow {
        token: FencingToken(u64::MAX),
        delayed: true,
        holder: Some(Box::new(HolderRow {
            ticket: plain_ticket(2),
            token: FencingToken(1),
            acquired_at: 9,
        })),
    };
    let changes = [
        LockChanges {
            head: Some(head.clone()),
            holding: [(Ticket::from_bits(2), None)].into(),
            ..LockChanges::default()
        },
        holding(3, plain_ticket(4)),
    ];
    commit(bed.store(), &[changed(&pool, changes)]).await;
    for _ in 0..2 {
        let found = lock_rows(bed.store(), "pool").await;
        assert_eq!(found.head, head);
        assert_eq!(rows(found), [3, 4]);
        bed.store().checkpoint().await.unwrap();
    }
    let mut again = next(&pool);
    again.remove(FencingToken(1));
    again.create(ResourceId::random(), plain(0));
    commit(bed.store(), &[again]).await;
    assert!(lock_rows(bed.store(), "pool").await.holding.is_empty());
}

pub async fn options_change_and_go_with_their_resource<B: Bed>() {
    let bed = B::fresh().await;
    let mut printer = created("printer");
    commit(bed.store(), std::slice::from_ref(&printer)).await;
    for options in [special(), plain(7), special()] {
        let mut changes = next(&printer);
        changes.options = Some(options);
        commit(bed.store(), &[changes]).await;
        let found = load(bed.store(), "printer").await.unwrap();
        assert_eq!(found.options, options);
    }
    printer.remove(FencingToken(1));
    printer.create(ResourceId::random(), plain(1));
    commit(bed.store(), &[printer]).await;
    let found = load(bed.store(), "printer").await.unwrap();
    assert_eq!(found.options, plain(1));
}

pub async fn a_waiting_ticket_is_replaced_and_removed<B: Bed>() {
    let bed = B::fresh().await;
    let mut printer = created("printer");
    printer.lock.merge(&waiting(full_ticket(1)));
    printer.lock.merge(&waiting(full_ticket(2)));
    commit(bed.store(), std::slice::from_ref(&printer)).await;
    let again = TicketRow {
        seq: 9,
        ..plain_ticket(1)
    };
    let changes = [
        waiting(again.clone()),
        left(Ticket::from_bits(2)),
        left(Ticket::from_bits(3)),
    ];
    commit(bed.store(), &[changed(&printer, changes)]).await;
    let found = lock_rows(bed.store(), "printer").await;
    assert_eq!(found.waiting, vec![again]);
}

fn forced() -> Forced {
    Forced {
        reason: Reason::parse("it hangs").unwrap(),
        by: KeyName::parse("admin").unwrap(),
    }
}

pub async fn every_field_of_an_ended_ticket_comes_back<B: Bed>() {
    let bed = B::fresh().await;
    let mut rows = [
        ended(u64::MAX - 9, EndReason::Released),
        ended(u64::MAX - 3, EndReason::Expired),
        ended(u64::MAX - 2, EndReason::ForcedOff),
        ended(u64::MAX - 1, EndReason::ForcedOff),
    ];
    rows[2].more = Some(Box::new(EndedMore {
        attempt: full_ticket(0).key.map(|key| (*key, None)),
        forced: Some(forced()),
    }));
    let mut printer = created("printer");
    for row in &rows {
        printer.lock.merge(&over(row.clone()));
    }
    commit(bed.store(), &[printer]).await;
    assert_eq!(lock_rows(bed.store(), "printer").await.ended, rows);
}

pub async fn an_ended_ticket_overwrites_the_one_64_before_it<B: Bed>() {
    let bed = B::fresh().await;
    let printer = created("printer");
    commit(bed.store(), std::slice::from_ref(&printer)).await;
    let first = (0..64).map(|n| over(ended(n, EndReason::Released)));
    commit(bed.store(), &[changed(&printer, first)]).await;
    let later = (64..66).map(|n| over(ended(n, EndReason::Expired)));
    commit(bed.store(), &[changed(&printer, later)]).await;
    let found = lock_rows(bed.store(), "printer").await.ended;
    let numbers: Vec<u64> = found.iter().map(|row| row.n).collect();
    assert_eq!(numbers, (2..66).collect::<Vec<u64>>());
    assert_eq!(found.last(), Some(&ended(65, EndReason::Expired)));
}

pub async fn a_document_keeps_the_id_of_its_first_write<B: Bed>() {
    let bed = B::fresh().await;
    let mut printer = created("printer");
    put(&mut printer, "state", "first", "1");
    commit(bed.store(), std::slice::from_ref(&printer)).await;
    let mut later = next(&printer);
    put(&mut later, "state", "second", "2");
    commit(bed.store(), &[later]).await;
    let found = document(bed.store(), &printer.id, "state").await.unwrap();
    assert_eq!((found.id.as_str(), &found.json[..]), ("first", &b"2"[..]));
    assert_eq!(load(bed.store(), "printer").await.unwrap().selectors, 1);
}

pub async fn a_document_written_again_after_its_deletion_has_its_new_id<B: Bed>() {
    let bed = B::fresh().await;
    let mut printer = created("printer");
    put(&mut printer, "state", "first", "1");
    commit(bed.store(), std::slice::from_ref(&printer)).await;
    let mut deleted = next(&printer);
    deleted.document(selector("state"), None);
    deleted.document(selector("never written"), None);
    commit(bed.store(), &[deleted]).await;
    assert_eq!(document(bed.store(), &printer.id, "state").await, None);
    assert_eq!(load(bed.store(), "printer").await.unwrap().selectors, 0);
    let mut again = next(&printer);
    put(&mut again, "state", "second", "2");
    commit(bed.store(), &[again]).await;
    let found = document(bed.store(), &printer.id, "state").await.unwrap();
    assert_eq!(found.id, "second");
}

/// A resource with a row of every kind.
fn with_all_rows(text: &str) -> Snapshot {
    let mut snapshot = created(text);
    snapshot.lock.merge(&held(5, full_ticket(1), 77));
    snapshot.lock.merge(&waiting(plain_ticket(2)));
    snapshot.lock.merge(&over(ended(0, EndReason::Expired)));
    // Ids of documents are unique in the whole store.
    put(&mut snapshot, "state", &format!("document of {text}"), "{}");
    snapshot
}

pub async fn what_is_removed_goes_before_what_is_created_and_that_before_the_rest<B: Bed>() {
    let bed = B::fresh().await;
    let old = with_all_rows("printer");
    commit(bed.store(), std::slice::from_ref(&old)).await;
    let mut snapshot = next(&old);
    snapshot.remove(FencingToken(5));
    snapshot.create(ResourceId::random(), plain(7));
    snapshot.lock.merge(&held(6, plain_ticket(3), 88));
    put(&mut snapshot, "other", "new document", "[]");
    let new = snapshot.id.clone();
    commit(bed.store(), std::slice::from_ref(&snapshot)).await;

    let found = load(bed.store(), "printer").await.unwrap();
    assert_eq!((&found.id, found.options), (&new, plain(7)));
    assert_eq!(Some(found.lock.head), snapshot.lock.head);
    assert_eq!((found.lock.waiting, found.lock.ended), (vec![], vec![]));
    assert_eq!(found.selectors, 1);
    assert_eq!(document(bed.store(), &old.id, "state").await, None);
    assert_eq!(document(bed.store(), &new, "state").await, None);
    assert!(document(bed.store(), &new, "other").await.is_some());
}

pub async fn a_removed_resource_leaves_nothing_behind<B: Bed>() {
    let bed = B::fresh().await;
    let (kept, old) = (with_all_rows("kept"), with_all_rows("printer"));
    commit(bed.store(), &[kept.clone(), old.clone()]).await;
    let mut removal = next(&old);
    removal.remove(FencingToken(5));
    commit(bed.store(), &[removal]).await;
    assert_eq!(load(bed.store(), "printer").await, None);
    assert_eq!(document(bed.store(), &old.id, "state").await, None);
    // The same id again must not find rows of its earlier life.
    let mut again = next(&old);
    again.create(old.id.clone(), plain(30));
    commit(bed.store(), &[again]).await;
    let found = load(bed.store(), "printer").await.unwrap();
    assert_eq!((found.lock, found.selectors), (LockRows::default(), 0));
    let other = load(bed.store(), "kept").await.unwrap();
    assert_eq!(
        (Some(other.lock.head), other.selectors),
        (kept.lock.head, 1)
    );
}

pub async fn a_resource_that_was_never_stored_can_be_removed<B: Bed>() {
    let bed = B::fresh().await;
    let mut snapshot = with_all_rows("printer");
    snapshot.remove(FencingToken(9));
    assert!(snapshot.created.is_none());
    commit(bed.store(), &[snapshot]).await;
    assert_eq!(load(bed.store(), "printer").await, None);
    let bed = bed.reopened().await;
    assert_eq!(token_floor(&bed).await, 9);
}

async fn token_floor<B: Bed>(bed: &B) -> u64 {
    bed.store().open().await.unwrap().0.0
}

pub async fn the_floor_grows_and_never_falls<B: Bed>() {
    let mut bed = B::fresh().await;
    assert_eq!(token_floor(&bed).await, 0);
    for (token, expected) in [
        (7, 7),
        (3, 7),
        (10, 10),
        (u64::MAX, u64::MAX),
        (11, u64::MAX),
    ] {
        let mut snapshot = created("printer");
        commit(bed.store(), std::slice::from_ref(&snapshot)).await;
        snapshot = next(&snapshot);
        snapshot.remove(FencingToken(token));
        commit(bed.store(), &[snapshot]).await;
        assert_eq!(token_floor(&bed).await, expected);
        bed = bed.reopened().await;
        assert_eq!(token_floor(&bed).await, expected);
    }
}

pub async fn an_empty_batch_and_an_empty_snapshot_change_nothing<B: Bed>() {
    let bed = B::fresh().await;
    let printer = with_all_rows("printer");
    commit(bed.store(), std::slice::from_ref(&printer)).await;
    let before = load(bed.store(), "printer").await;
    commit(bed.store(), &[]).await;
    let unknown = Snapshot::empty(name("scanner"), ResourceId::random());
    commit(bed.store(), &[next(&printer), unknown]).await;
    assert_eq!(load(bed.store(), "printer").await, before);
    assert_eq!(load(bed.store(), "scanner").await, None);
}

pub async fn a_batch_of_thousands_is_stored_whole<B: Bed>() {
    let bed = B::fresh().await;
    let batch: Vec<Snapshot> = (0..3_000)
        .map(|i| with_all_rows(&format!("n{i}")))
        .collect();
    commit(bed.store(), &batch).await;
    let changes: Vec<Snapshot> = batch
        .iter()
        .map(|snapshot| changed(snapshot, [free(6), left(Ticket::from_bits(2))]))
        .collect();
    commit(bed.store(), &changes).await;
    for i in [0, 1, 1_499, 2_999] {
        let found = load(bed.store(), &format!("n{i}")).await.unwrap();
        assert_eq!(found.id, batch[i].id);
        assert_eq!(found.lock.head.token, FencingToken(6));
        assert_eq!((found.lock.waiting.len(), found.selectors), (0, 1));
    }
    let all = ListQuery {
        limit: 10_000,
        ..ListQuery::default()
    };
    assert_eq!(list(bed.store(), &all).await.len(), 3_000);
}

pub async fn ten_thousand_waiting_tickets_come_back<B: Bed>() {
    let bed = B::fresh().await;
    let mut printer = created("printer");
    let waiter = |i: u64| TicketRow {
        seq: i,
        ..plain_ticket(u128::from(i) << 64)
    };
    for i in 0..10_000 {
        printer.lock.merge(&waiting(waiter(i)));
    }
    commit(bed.store(), std::slice::from_ref(&printer)).await;
    // One leaves from each end.
    let gone = [0, 9_999].map(|i| left(waiter(i).ticket));
    commit(bed.store(), &[changed(&printer, gone)]).await;
    let found = lock_rows(bed.store(), "printer").await.waiting;
    assert_eq!(found, (1..9_999).map(waiter).collect::<Vec<_>>());
}

pub async fn a_rejected_batch_stores_nothing<B: Bed>() {
    let bed = B::fresh().await;
    let mut printer = with_all_rows("printer");
    commit(bed.store(), &[printer.clone(), created("taken")]).await;
    let before = load(bed.store(), "printer").await;
    let mut raised = created("scanner");
    raised.remove(FencingToken(99));
    raised.create(ResourceId::random(), plain(1));
    let batch = [
        raised,
        changed(&printer, [free(50)]),
        created("plotter"),
        created("taken"),
    ];
    let result = bed.store().commit(&batch).await;
    assert!(is_rejected(&result), "{result:?}");
    assert_eq!(load(bed.store(), "printer").await, before);
    assert_eq!(load(bed.store(), "scanner").await, None);
    assert_eq!(load(bed.store(), "plotter").await, None);
    // What is left of it without the culprit can be stored.
    commit(bed.store(), &batch[1..3]).await;
    assert!(load(bed.store(), "plotter").await.is_some());
    printer = changed(&printer, [free(51)]);
    commit(bed.store(), &[printer]).await;
    assert_eq!(token_floor(&bed).await, 0);
}

pub async fn rows_of_a_resource_that_does_not_exist_are_rejected<B: Bed>() {
    let bed = B::fresh().await;
    let (printer, plotter) = (created("printer"), created("plotter"));
    commit(bed.store(), &[printer, plotter.clone()]).await;
    let stranger = Snapshot::empty(name("printer"), ResourceId::random());
    let mut document = stranger.clone();
    put(&mut document, "state", "id", "1");
    for lost in [
        changed(&stranger, [free(1)]),
        changed(&stranger, [waiting(plain_ticket(1))]),
        changed(&stranger, [over(ended(0, EndReason::Released))]),
        document,
    ] {
        let batch = [changed(&plotter, [free(2)]), lost];
        let result = bed.store().commit(&batch).await;
        assert!(is_rejected(&result), "{result:?}");
    }
    for name in ["printer", "plotter"] {
        let found = lock_rows(bed.store(), name).await;
        assert_eq!(found.head, HeadRow::default());
    }
}

/// Texts that some comparison or other takes for equal.
fn near_twins() -> Vec<String> {
    let long = "\u{1f511}".repeat(254);
    let twins = [
        "printer",
        "Printer",
        "PRINTER",
        "printer ",
        " printer",
        "printer  ",
        "\u{e9}",
        "e\u{301}",
        "e",
        "\u{df}",
        "ss",
        "\u{131}",
        "i",
        "I",
        "\u{130}",
        "\u{10ffff}",
        "\u{feff}a",
        "a",
        "a\u{200b}",
        "1",
        "01",
        "1.0",
        "a%2Fb",
        "a/b",
        "'",
        "\\'",
        "\"",
        "null",
        "%",
        "_",
        "\\",
    ];
    let mut all: Vec<String> = twins.map(str::to_owned).to_vec();
    all.push(format!("{long}\u{1f511}"));
    all.push(format!("{long}\u{1f512}"));
    all
}

pub async fn names_are_compared_byte_for_byte<B: Bed>() {
    let bed = B::fresh().await;
    let batch: Vec<Snapshot> = near_twins().iter().map(|twin| created(twin)).collect();
    commit(bed.store(), &batch).await;
    for snapshot in &batch {
        let found = load(bed.store(), snapshot.name.as_str()).await;
        assert_eq!(found.map(|found| found.id), Some(snapshot.id.clone()));
    }
    assert_eq!(load(bed.store(), "pRINTER").await, None);
    assert_eq!(load(bed.store(), "printer   ").await, None);
}

pub async fn selectors_are_compared_byte_for_byte<B: Bed>() {
    let bed = B::fresh().await;
    let mut printer = created("printer");
    for (i, twin) in near_twins().iter().enumerate() {
        put(&mut printer, twin, &format!("id{i}"), format!("{i}"));
    }
    commit(bed.store(), std::slice::from_ref(&printer)).await;
    for (i, twin) in near_twins().iter().enumerate() {
        let found = document(bed.store(), &printer.id, twin).await.unwrap();
        assert_eq!(found.id, format!("id{i}"), "{twin:?}");
        assert_eq!(found.json, Bytes::from(format!("{i}")));
    }
    assert_eq!(document(bed.store(), &printer.id, "pRINTER").await, None);
}

pub async fn documents_come_back_byte_for_byte<B: Bed>() {
    let bed = B::fresh().await;
    let documents = [
        "{}",
        "null",
        "\"\"",
        " \t\r\n{ \"b\" : 1 ,\n \"a\" : 1, \"a\" : 2 } \r\n",
        "123456789012345678901234567890.10e+0400",
        "1.0000000000000000000000001",
        "-0.0",
        "\"\\u0000\\u00e9\\ud83d\\ude00\\/\\\\\\\"\"",
        "\"\u{1f600}\u{10ffff}\u{e9}e\u{301}\u{feff}\u{2028}\u{7f}\"",
        "\"'; DROP TABLE resource; -- \\\\ %_?$1\"",
        "[true,false,null,[[[[{}]]]]]",
    ];
    let mut printer = created("printer");
    for (i, json) in documents.iter().enumerate() {
        put(&mut printer, &format!("s{i}"), &format!("id{i}"), *json);
    }
    commit(bed.store(), std::slice::from_ref(&printer)).await;
    let bed = bed.reopened().await;
    for (i, json) in documents.iter().enumerate() {
        let found = document(bed.store(), &printer.id, &format!("s{i}")).await;
        assert_eq!(found.unwrap().json, Bytes::from(*json));
    }
}

pub async fn documents_are_listed_with_their_sizes_in_the_order_of_their_bytes<B: Bed>() {
    let bed = B::fresh().await;
    let mut printer = created("printer");
    // Upper case comes before lower case, a trailing space counts, and sizes are of bytes.
    let wanted = [
        ("B", "1"),
        ("a", "\"\u{20ac}\""),
        ("a ", "[1,2]"),
        ("\u{e9}", "{}"),
    ];
    for (n, (selector, json)) in wanted.iter().rev().enumerate() {
        put(&mut printer, selector, &format!("id{n}"), *json);
    }
    let mut other = created("other");
    put(&mut other, "b", "of another", "[]");
    commit(bed.store(), &[printer.clone(), other]).await;
    let sizes = async |after: &str, limit| -> Vec<(String, u64)> {
        let found = bed.store().document_sizes(&printer.id, after, limit).await;
        let found = found.unwrap().into_iter();
        found
            .map(|size| (size.selector.to_string(), size.bytes))
            .collect()
    };
    let wanted = wanted.map(|(selector, json)| (selector.to_owned(), json.len() as u64));
    assert_eq!(sizes("", 10).await, wanted);
    assert_eq!(sizes("", 2).await, wanted[..2]);
    assert_eq!(sizes("a", 2).await, wanted[2..]);
    assert_eq!(sizes("\u{e9}", 10).await, []);
    let none = bed
        .store()
        .document_sizes(&ResourceId::random(), "", 10)
        .await;
    assert_eq!(none, Ok(Vec::new()));
}

pub async fn a_document_of_two_mebibytes_comes_back<B: Bed>() {
    let bed = B::fresh().await;
    let bytes = 2 << 20;
    let mut json = String::from("\"");
    while json.len() < bytes - 5 {
        json.push(['x', '\u{e9}', '\u{20ac}', '\u{1f600}'][json.len() % 4]);
    }
    json.push('"');
    let mut printer = created("printer");
    put(&mut printer, "big", "id", json.clone());
    put(&mut printer, "small", "id2", "1");
    commit(bed.store(), std::slice::from_ref(&printer)).await;
    let found = document(bed.store(), &printer.id, "big").await.unwrap();
    assert!(found.json == json.as_bytes(), "{} bytes", found.json.len());
    let mut shorter = next(&printer);
    put(&mut shorter, "big", "id", "2");
    commit(bed.store(), &[shorter]).await;
    let found = document(bed.store(), &printer.id, "big").await.unwrap();
    assert_eq!(found.json, Bytes::from("2"));
}

/// Stores rows of every kind, and tells how they look.
async fn filled<B: Bed>(bed: &B) -> (Snapshot, Option<StoredResource>) {
    let printer = with_all_rows("printer");
    let mut gone = created("gone");
    commit(bed.store(), &[printer.clone(), gone.clone()]).await;
    gone = next(&gone);
    gone.remove(FencingToken(44));
    commit(bed.store(), &[changed(&printer, [free(6)]), gone]).await;
    let found = load(bed.store(), "printer").await;
    assert!(found.is_some());
    (printer, found)
}

async fn is_all_there<B: Bed>(bed: &B, printer: &Snapshot, before: Option<StoredResource>) {
    assert_eq!(load(bed.store(), "printer").await, before);
    assert_eq!(load(bed.store(), "gone").await, None);
    let found = document(bed.store(), &printer.id, "state").await.unwrap();
    assert_eq!(found.json, Bytes::from("{}"));
    commit(bed.store(), &[changed(printer, [free(7)])]).await;
    let found = lock_rows(bed.store(), "printer").await;
    assert_eq!(found.head.token, FencingToken(7));
    assert_eq!(token_floor(bed).await, 44);
}

pub async fn everything_outlives_closing_and_opening<B: Bed>() {
    let bed = B::fresh().await;
    let (printer, before) = filled(&bed).await;
    let bed = bed.reopened().await;
    is_all_there(&bed, &printer, before).await;
}

pub async fn everything_outlives_a_crash<B: Bed>() {
    let bed = B::fresh().await;
    let (printer, before) = filled(&bed).await;
    let bed = bed.crashed().await;
    is_all_there(&bed, &printer, before).await;
}

pub async fn everything_outlives_being_opened_again<B: Bed>() {
    let bed = B::fresh().await;
    let (printer, before) = filled(&bed).await;
    assert!(bed.store().open().await.is_ok());
    is_all_there(&bed, &printer, before).await;
}

pub async fn past_leases_are_added_to_those_of_their_name<B: Bed>() {
    let bed = B::fresh().await;
    let lease = |token| PastLease {
        owner: Owner::parse("worker").ok(),
        reason: None,
        mode: Mode::Shared,
        fencing_token: token,
        acquired_at: 1_700_000_000_000,
        ended_at: 1_700_000_001_000,
        end: LeaseEnd::ForcedOff,
        forced: Some(Box::new(forced())),
        queued_ms: 7,
    };
    // One that begins where another ends, and one that differs by a trailing space alone.
    let names = ["a", "a ", "A", "é"].map(|text| ResourceName::parse(text).unwrap());
    let news = |token| -> PastLeases {
        names
            .iter()
            .map(|name| (name.clone(), vec![lease(token)]))
            .collect()
    };
    for token in 1..=4 {
        bed.store().append_history(&news(token), 3).await.unwrap();
    }
    bed.store().append_history(&news(4), 3).await.unwrap();
    for name in &names {
        let kept = bed.store().history(name).await.unwrap();
        assert_eq!(kept, [lease(2), lease(3), lease(4)]);
    }
    let never = ResourceName::parse("never").unwrap();
    assert_eq!(bed.store().history(&never).await, Ok(Vec::new()));
}
