//! A database that the PHP server wrote, served as it is, and given back.

use small_resource_server::store::mysql::Options;

use crate::instance::{serving, setup};
use crate::support::{Database, Program};
use crate::wait;

const PRINTER: &str = "01HQZX3V5K8M2N4P6R7S9T0WXY";

/// A database as the PHP server leaves it.
fn php_database(database: &Database) {
    let rows = [
        format!("INSERT INTO resource VALUES ('{PRINTER}', 'Printer', 1)"),
        format!(
            "INSERT INTO resource_data VALUES ('d1', '{PRINTER}', 'a%2Fb', 1, '{{\"x\": 1e400}}')"
        ),
    ];
    wait(async {
        database.make_php(str::to_owned).await;
        for sql in rows {
            database.run(&sql).await;
        }
    });
}

fn stop(mut instance: Program) {
    instance.stop();
}

/// Exit code, and what was said.
fn revert(options: &Options, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments: Vec<&str> = ["revert-to-php"].iter().chain(arguments).copied().collect();
    let output = setup(options).output(&arguments);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// As code that leans on the PHP server finds it.
fn behaves_as_php(instance: &Program) {
    let unwritten = instance
        .call("GET", "/resource/Printer/unwritten")
        .settled();
    assert_eq!(unwritten.status, 202, "{unwritten:?}");
    assert_eq!(unwritten.json()["unavailable"], true);
    let ticket = unwritten.ticket();
    assert_eq!(
        instance
            .put("Printer/unwritten", "1")
            .ticket(&ticket)
            .settled()
            .status,
        204
    );
    assert_eq!(
        instance.described("Printer")["locked"],
        false,
        "the write releases"
    );
    assert_eq!(
        instance
            .call("DELETE", "/resource/Printer/unwritten")
            .settled()
            .status,
        204
    );
}

#[test]
fn an_adopted_database_is_served_as_php_and_goes_back_and_forth() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database);
    let options = database.options();
    for _ in 0..2 {
        let instance = serving(&options);
        let warning = instance.logged(&["the profile is php"]);
        assert!(
            warning.contains("WARN") && warning.contains("COMPATIBILITY"),
            "{warning}"
        );
        assert_eq!(instance.data("Printer/a%2Fb"), r#"{"x": 1e400}"#);
        assert_eq!(instance.described("Printer")["id"], PRINTER);
        assert_eq!(instance.describe("printer").settled().status, 404);
        behaves_as_php(&instance);
        let (code, said) = revert(&options, &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("Nothing was changed") && said.contains("instance"),
            "{said}"
        );
        assert!(
            instance.is_ready(),
            "reverting disturbed the instance that serves"
        );
        stop(instance);

        // What was recorded counts at the next start, too.
        let instance = serving(&options);
        instance.logged(&["the profile is php"]);
        behaves_as_php(&instance);
        stop(instance);

        let (code, said) = revert(&options, &[]);
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("1 resources") && said.contains("--yes"),
            "{said}"
        );
        assert_eq!(selectors(&database), ["a/b"], "a rehearsal changes nothing");
        let (code, said) = revert(&options, &["--yes"]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(selectors(&database), ["a%2Fb"]);
        assert_eq!(tables(&database), ["resource", "resource_data"]);
        let (code, said) = revert(&options, &["--yes"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("nothing to revert"), "{said}");
    }
}

fn selectors(database: &Database) -> Vec<String> {
    wait(database.texts("SELECT selector FROM resource_data"))
}

fn tables(database: &Database) -> Vec<String> {
    wait(database.texts("SHOW TABLES"))
}

#[test]
fn a_database_that_can_never_be_served_stops_the_start_with_exit_code_78() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database);
    wait(database.run("RENAME TABLE resource TO other"));
    wait(database.run("CREATE VIEW resource AS SELECT * FROM other"));
    let output = setup(&database.options()).output(&[]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("`resource` is of the kind VIEW"), "{said}");
}

#[test]
fn the_operator_can_choose_the_documented_profile_for_an_adopted_database() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database);
    let options = database.options();
    let instance = setup(&options)
        .with_all(&[("COMPATIBILITY", "default")])
        .launch();
    instance.until_ready();
    let unwritten = instance
        .call("GET", "/resource/Printer/unwritten")
        .settled();
    assert_eq!(unwritten.status, 404, "{unwritten:?}");
    assert!(!instance.log().contains("the profile is php"));
    stop(instance);
}

#[test]
fn what_php_cannot_hold_is_named_and_nothing_is_changed() {
    let Some(database) = Database::new() else {
        return;
    };
    php_database(&database);
    let options = database.options();
    let instance = serving(&options);
    assert_eq!(instance.create("printer", 0).settled().status, 201);
    stop(instance);
    let (code, said) = revert(&options, &["--yes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("\"printer\"") && said.contains("\"Printer\""),
        "{said}"
    );
    assert_eq!(selectors(&database), ["a/b"]);
    let instance = serving(&options);
    assert_eq!(instance.data("Printer/a%2Fb"), r#"{"x": 1e400}"#);
}
