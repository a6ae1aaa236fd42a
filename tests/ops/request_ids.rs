//! `X-Request-Id`: taken or made, and answered back on every answer.

use crate::support::{Answer, Program, Setup};

fn id(answer: &Answer) -> &str {
    answer.header("X-Request-Id").expect("a request id")
}

#[test]
fn an_id_of_visible_ascii_is_answered_back_as_it_came() {
    let server = Program::new();
    let longest = "x".repeat(128);
    for given in ["7", "0af7651916cd43dd8448eb211c80319c", "a\"b=c", &longest] {
        let call = server.call("GET", "/health").header("X-Request-Id", given);
        assert_eq!(id(&call.send()), given);
    }
}

#[test]
fn any_other_gets_one_that_was_made() {
    let server = Program::new();
    let too_long = "x".repeat(129);
    for given in ["", "two words", "caf\u{e9}", &too_long] {
        let call = server.call("GET", "/health").header("X-Request-Id", given);
        let answer = call.send();
        assert_ne!(id(&answer), given);
        assert!(!id(&answer).is_empty());
    }
}

#[test]
fn every_answer_carries_one_of_its_own() {
    let server = Setup::new().with_all(&[("MAX_BODY_BYTES", "1000")]).start();
    let answers = [
        server.call("GET", "/health").send(),
        server.call("GET", "/metrics").send(),
        server.call("GET", "/openapi.json").send(),
        server.call("GET", "/nowhere").send(),
        server.call("PATCH", "/resource").send(),
        server.call("GET", "/resource").no_key().send(),
        server.call("POST", "/resource").body("{").send(),
        server
            .call("POST", "/resource")
            .body("1".repeat(2000))
            .send(),
    ];
    let statuses = answers.each_ref().map(|answer| answer.status);
    assert_eq!(statuses, [200, 200, 200, 404, 405, 401, 400, 413]);
    let mut ids: Vec<&str> = answers.iter().map(id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), answers.len());
}
