//! The claims about listings that every store keeps.

use small_resource_server::lock::FencingToken;
use small_resource_server::lock::rows::HolderRow;
use small_resource_server::lock::rows::TicketRow;
use small_resource_server::store::{ListOrder, ListQuery, ListedResource, Snapshot, Store};

use crate::bed::Bed;
use crate::rows::*;

fn all() -> ListQuery {
    ListQuery {
        limit: 1_000,
        ..ListQuery::default()
    }
}

async fn names(store: &dyn Store, query: &ListQuery) -> Vec<String> {
    let found = list(store, query).await;
    found.iter().map(|found| found.name.to_string()).collect()
}

async fn bed_with<B: Bed>(names: &[&str]) -> B {
    let bed = B::fresh().await;
    let batch: Vec<Snapshot> = names.iter().map(|name| created(name)).collect();
    commit(bed.store(), &batch).await;
    bed
}

pub async fn a_listing_shows_what_is_stored<B: Bed>() {
    let bed = B::fresh().await;
    let mut printer = created("printer");
    let holder = full_ticket(1);
    printer
        .lock
        .merge(&held(u64::MAX, holder.clone(), 1_700_000_000_123));
    printer.lock.merge(&waiting(plain_ticket(2)));
    printer.lock.merge(&waiting(plain_ticket(3)));
    put(&mut printer, "a", "1", "1");
    put(&mut printer, "b", "2", "1");
    put(&mut printer, "c", "3", "1");
    let scanner = created("scanner");
    commit(bed.store(), &[printer.clone(), scanner.clone()]).await;
    let expected = [
        ListedResource {
            name: name("printer"),
            id: printer.id,
            options: plain(30),
            holder: Some(HolderRow {
                ticket: holder,
                token: FencingToken(u64::MAX),
                acquired_at: 1_700_000_000_123,
            }),
            waiting: 2,
            selectors: 3,
        },
        ListedResource {
            name: name("scanner"),
            id: scanner.id,
            options: plain(30),
            holder: None,
            waiting: 0,
            selectors: 0,
        },
    ];
    for order in [ListOrder::Name, ListOrder::Waiting, ListOrder::Held] {
        let found = list(bed.store(), &ListQuery { order, ..all() }).await;
        assert_eq!(found, expected, "{order:?}");
    }
}

pub async fn names_are_listed_in_byte_order_and_page_by_page<B: Bed>() {
    let mut texts = vec![
        "B",
        "a",
        "A",
        "b",
        "a ",
        "ab",
        "a-b",
        "a_b",
        "\u{e9}",
        "e",
        "f",
        "z",
        "e\u{301}",
        "10",
        "9",
        "\u{1f511}",
        "\u{ffff}",
        "\u{10ffff}",
        "~",
    ];
    let bed: B = bed_with(&texts).await;
    texts.sort_by_key(|text| text.as_bytes());
    assert_eq!(names(bed.store(), &all()).await, texts);
    for limit in [1, 2, 5, texts.len()] {
        let mut query = ListQuery { limit, ..all() };
        let mut paged = Vec::new();
        loop {
            let page = names(bed.store(), &query).await;
            assert!(page.len() <= limit);
            query.after = page.last().cloned();
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, texts, "pages of {limit}");
    }
}

pub async fn a_prefix_is_compared_byte_for_byte<B: Bed>() {
    let texts = [
        "%",
        "%a",
        "_",
        "_a",
        "\\",
        "\\%",
        "a",
        "a%b",
        "a_b",
        "axb",
        "A%b",
        "a\u{10ffff}",
        "a\u{10ffff}z",
        "b",
        "\u{10ffff}",
        "\u{10ffff}\u{10ffff}",
        "\u{d7ff}x",
        "\u{e000}",
        "\u{e9}t",
        "e\u{301}t",
        "*",
        "?",
        "[a]",
    ];
    let bed: B = bed_with(&texts).await;
    let prefixes = [
        "",
        "%",
        "_",
        "\\",
        "a",
        "a%",
        "a_",
        "a\u{10ffff}",
        "\u{10ffff}",
        "\u{d7ff}",
        "\u{e9}",
        "e",
        "*",
        "?",
        "[",
        "A",
        "axbx",
        "zz",
    ];
    for prefix in prefixes {
        let query = ListQuery {
            prefix: prefix.to_owned(),
            ..all()
        };
        let mut expected: Vec<&str> = texts.to_vec();
        expected.retain(|text| text.starts_with(prefix));
        expected.sort_unstable();
        assert_eq!(names(bed.store(), &query).await, expected, "{prefix:?}");
    }
}

pub async fn a_name_before_the_prefix_skips_nothing<B: Bed>() {
    let bed: B = bed_with(&["a", "b", "b1", "b2", "c"]).await;
    let after = |after: &str| ListQuery {
        prefix: "b".to_owned(),
        after: Some(after.to_owned()),
        ..all()
    };
    let listed = |query| {
        let store = bed.store();
        async move { names(store, &query).await }
    };
    assert_eq!(listed(after("a")).await, ["b", "b1", "b2"]);
    assert_eq!(listed(after("")).await, ["b", "b1", "b2"]);
    assert_eq!(listed(after("b")).await, ["b1", "b2"]);
    assert_eq!(listed(after("b1x")).await, ["b2"]);
    assert_eq!(listed(after("b2")).await, Vec::<String>::new());
    assert_eq!(listed(after("c")).await, Vec::<String>::new());
}

/// `a` to `f`: who holds since when, and how many wait.
async fn busy_bed<B: Bed>() -> B {
    let bed = B::fresh().await;
    let states = [
        ("f", Some(300), 0),
        ("e", None, 2),
        ("d", Some(100), 5),
        ("c", None, 0),
        ("b", Some(300), 2),
        ("a", None, 0),
    ];
    let batch = states.map(|(text, since, waits)| {
        let mut snapshot = created(text);
        if let Some(since) = since {
            snapshot.lock.merge(&held(1, plain_ticket(1), since));
        }
        for i in 0..waits {
            snapshot.lock.merge(&waiting(TicketRow {
                seq: i,
                ..plain_ticket(u128::from(i) + 10)
            }));
        }
        snapshot
    });
    commit(bed.store(), &batch).await;
    bed
}

pub async fn only_held_or_only_free_resources_are_listed<B: Bed>() {
    let bed: B = busy_bed().await;
    let listed = async |held, order| {
        let query = ListQuery {
            held,
            order,
            ..all()
        };
        names(bed.store(), &query).await.concat()
    };
    assert_eq!(listed(Some(true), ListOrder::Name).await, "bdf");
    assert_eq!(listed(Some(false), ListOrder::Name).await, "ace");
    assert_eq!(listed(Some(true), ListOrder::Waiting).await, "dbf");
    assert_eq!(listed(Some(false), ListOrder::Waiting).await, "eac");
    assert_eq!(listed(Some(true), ListOrder::Held).await, "dbf");
    assert_eq!(listed(Some(false), ListOrder::Held).await, "ace");
}

pub async fn most_waiting_tickets_come_first_and_then_names<B: Bed>() {
    let bed: B = busy_bed().await;
    let query = ListQuery {
        order: ListOrder::Waiting,
        ..all()
    };
    assert_eq!(names(bed.store(), &query).await.concat(), "dbeacf");
}

pub async fn longest_held_comes_first_and_then_names<B: Bed>() {
    let bed: B = busy_bed().await;
    let query = ListQuery {
        order: ListOrder::Held,
        ..all()
    };
    assert_eq!(names(bed.store(), &query).await.concat(), "dbface");
}

pub async fn other_orders_heed_prefix_and_limit_and_ignore_after<B: Bed>() {
    let bed: B = busy_bed().await;
    for (order, expected) in [(ListOrder::Waiting, "dbeacf"), (ListOrder::Held, "dbface")] {
        for limit in 1..=6 {
            let query = ListQuery {
                limit,
                order,
                after: Some("e".to_owned()),
                ..all()
            };
            let found = names(bed.store(), &query).await.concat();
            assert_eq!(found, expected[..limit], "{order:?}");
        }
        let query = ListQuery {
            prefix: "c".to_owned(),
            order,
            ..all()
        };
        assert_eq!(names(bed.store(), &query).await.concat(), "c");
    }
}
