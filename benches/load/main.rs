//! Load on a running server: `cargo bench --bench load -- ADDRESS`.

mod client;

use std::time::Duration;

use client::{Connection, run};

const CONNECTIONS: usize = 64;
const NAMES: usize = 1000;

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() && method != "POST" {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: bench\r\nx-api-key: w\r\n{headers}{length}\r\n{body}"
    )
    .into_bytes()
}

async fn lock_unlock(index: usize, round: usize, c: &mut Connection) -> std::io::Result<u64> {
    let name = (index * 7919 + round * 64) % NAMES;
    let locked = c
        .send(&request(
            "PUT",
            &format!("/resource/b{name}/q/lock"),
            "",
            "",
        ))
        .await?;
    let ticket = locked.ticket.unwrap_or_default();
    let headers = format!("X-Ticket: {ticket}\r\n");
    c.send(&request(
        "PUT",
        &format!("/resource/b{name}/q/unlock"),
        &headers,
        "",
    ))
    .await?;
    Ok(2)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args()
        .nth(1)
        .unwrap_or("127.0.0.1:9601".to_owned());
    let mut setup = Connection::open(&address).await.expect("a server");
    for name in 0..NAMES {
        let body = format!("{{\"name\":\"b{name}\",\"timeout\":300}}");
        setup
            .send(&request("POST", "/resource", "", &body))
            .await
            .expect("created");
        setup
            .send(&request(
                "PUT",
                &format!("/resource/b{name}/q"),
                "",
                "{\"a\":1}",
            ))
            .await
            .expect("written");
    }
    let health = request("GET", "/health", "", "");
    for _ in 0..3 {
        let time = Duration::from_secs(3);
        let mut bare = run(&address, CONNECTIONS, time, async |_, _, c| {
            c.send(&health).await.map(|_| 1)
        })
        .await;
        let read = run(&address, CONNECTIONS, time, async |i, r, c| {
            let name = (i * 7919 + r * 64) % NAMES;
            let get = request("GET", &format!("/resource/b{name}/q?lock=0"), "", "");
            c.send(&get).await.map(|_| 1)
        })
        .await;
        let locks = run(&address, CONNECTIONS, time, lock_unlock).await;
        println!(
            "bare {:.0}/s (p99 {} us)  read {:.2}  lock+unlock {:.0}/s {:.2} errors {}",
            bare.per_second(),
            bare.percentile(99.0),
            read.per_second() / bare.per_second(),
            locks.per_second(),
            locks.per_second() / bare.per_second(),
            locks.errors
        );
    }
}
