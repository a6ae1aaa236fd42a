//! Names made on the fly, very many of them: they leave the tables as they were.
//!
//! `EPHEMERAL_NAMES` (10,000) says how many; a million take their time in a debug build.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Row, Value};
use rusqlite::Connection;

use crate::support::{Server, Setup, Store};

/// Each with a connection of its own, so that the store has something to put into one commit.
const CLIENTS: usize = 32;

fn names() -> usize {
    let number = std::env::var("EPHEMERAL_NAMES");
    number.map_or(10_000, |text| {
        text.parse().expect("EPHEMERAL_NAMES is a number")
    })
}

/// The rows of each table, in words. Left out is what is to differ: the highest tokens and who serves, what SQLite
/// writes over and over in its journal, and the log of whoever served, of which the last rows stay.
type Tables = BTreeMap<String, Vec<String>>;

fn of_sqlite(setup: &Setup) -> Tables {
    let raw = Connection::open(setup.folder().join("resources.db")).unwrap();
    let names = "SELECT name FROM sqlite_schema WHERE type = 'table' \
                 AND name NOT IN ('server_meta', 'resource_journal')";
    let mut names = raw.prepare(names).unwrap();
    let names = names.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let rows = |table: &str| {
        let mut all = raw.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = all.column_count();
        let rows = all.query_map([], |row| {
            let values = (0..columns).map(|n| row.get::<_, rusqlite::types::Value>(n));
            values.collect::<Result<Vec<_>, _>>()
        });
        let rows = rows.unwrap().map(|row| format!("{:?}", row.unwrap()));
        rows.collect()
    };
    names
        .map(|name| name.unwrap())
        .map(|name| (name.clone(), rows(&name)))
        .collect()
}

fn of_mysql(setup: &Setup) -> Tables {
    let database = setup.database();
    let read = async {
        let names = "SELECT table_name FROM information_schema.tables \
                     WHERE table_schema = DATABASE() \
                     AND table_name NOT IN ('resource_server', 'resource_instance', 'resource_log', 'resource_slot')";
        let names = database.texts(names).await;
        let mut admin = database.admin().await;
        let mut tables = Tables::new();
        for name in names {
            let sql = format!("SELECT * FROM {name} ORDER BY 1, 2");
            let rows: Vec<Row> = admin.query(sql).await.unwrap();
            let rows = rows.into_iter().map(Row::unwrap);
            let rows = rows.map(|values: Vec<Value>| format!("{values:?}"));
            tables.insert(name, rows.collect());
        }
        tables
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(read)
}

fn tables(store: Store, setup: &Setup) -> Tables {
    match store {
        Store::Sqlite => of_sqlite(setup),
        Store::Mysql => of_mysql(setup),
        Store::Memory => unreachable!("it has no tables"),
    }
}

/// Locks and releases its share of the names, one after the other; the highest token it was told.
fn lock_and_release(app: &Server, client: usize, count: usize) -> u64 {
    let address = app.address();
    let client_of = crate::support::Client::at(address).patient();
    let mut connection = client_of.connect();
    let mut highest = 0;
    for n in (client..count).step_by(CLIENTS) {
        let path = format!("job:{n}/s");
        let lock = client_of.lock(&path).query("create=1");
        let grant = connection.exchange(&lock);
        assert_eq!(grant.status, 200, "{grant:?}");
        highest = highest.max(grant.token());
        let unlocked = connection.exchange(&client_of.unlock(&path, &grant.ticket()));
        assert_eq!(unlocked.status, 200, "{unlocked:?}");
    }
    highest
}

durable_tests! {
    fn very_many_ephemeral_names_leave_the_tables_as_they_were(store) {
        let setup = Setup::on(store);
        let mut app = setup.serve();
        // So that there is something that could change.
        app.prepare("printer");
        app.hold("printer/s");
        app.queue("printer/s");
        app.stop();
        let before = tables(store, &setup);
        assert!(before["resource"].len() == 1 && before["resource_lock"].len() == 1);

        app.start_again(&[]);
        let count = names();
        let highest = std::thread::scope(|scope| {
            let app = &app;
            let clients = (0..CLIENTS).map(|n| scope.spawn(move || lock_and_release(app, n, count)));
            let clients: Vec<_> = clients.collect();
            clients.into_iter().map(|client| client.join().unwrap()).max()
        });
        assert_eq!(app.names(), ["printer"]);
        app.stop();
        assert_eq!(tables(store, &setup), before);

        app.start_again(&[]);
        let again = app.lock("job:0/s").query("create=1").expect(200);
        assert!(Some(again.token()) > highest, "its token went back");
    }
}
