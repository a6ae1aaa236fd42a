//! The two peers as their clients see them: etcd's lock over its HTTP gateway, and Redis' `SET NX PX`.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Connection, expect};

/// One connection to etcd, with a lease of its own under which all its locks are taken: without one every
/// lock would cost a lease of its own besides.
pub struct Etcd {
    connection: Connection,
    lease: String,
}

impl Etcd {
    pub async fn open(address: &str) -> io::Result<Etcd> {
        let mut connection = Connection::open(address).await?;
        let body = br#"{"TTL":"3600","ID":"0"}"#;
        let answer = connection
            .send("POST", "/v3/lease/grant", None, body)
            .await?;
        expect(&connection, &answer, "lease", answer.status == 200)?;
        let lease = field(connection.body(&answer), "ID")?;
        Ok(Etcd { connection, lease })
    }

    pub async fn lock_and_unlock(&mut self, name: usize) -> io::Result<()> {
        let c = &mut self.connection;
        let name = base64(format!("b{name}").as_bytes());
        let body = format!("{{\"name\":\"{name}\",\"lease\":\"{}\"}}", self.lease);
        let answer = c
            .send("POST", "/v3/lock/lock", None, body.as_bytes())
            .await?;
        expect(c, &answer, "etcd lock", answer.status == 200)?;
        let key = field(c.body(&answer), "key")?;
        let body = format!("{{\"key\":\"{key}\"}}");
        let answer = c
            .send("POST", "/v3/lock/unlock", None, body.as_bytes())
            .await?;
        expect(c, &answer, "etcd unlock", answer.status == 200)
    }
}

/// The text of a field of a flat JSON object.
fn field(body: &[u8], name: &str) -> io::Result<String> {
    let value: serde_json::Value = serde_json::from_slice(body)?;
    let text = value[name].as_str().map(str::to_owned);
    text.ok_or_else(|| io::Error::other(format!("no {name} in {value}")))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let filled = digit <= three.len();
            let index = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if filled { DIGITS[index] as char } else { '=' });
        }
    }
    text
}

/// One connection to Redis.
pub struct Redis {
    stream: TcpStream,
    request: String,
}

impl Redis {
    pub async fn open(address: &str) -> io::Result<Redis> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Redis {
            stream,
            request: String::new(),
        })
    }

    pub async fn lock_and_unlock(&mut self, name: usize, owner: &str) -> io::Result<()> {
        let name = format!("b{name}");
        self.ask(&["SET", &name, owner, "NX", "PX", "300000"], b"+OK\r\n")
            .await?;
        self.ask(&["DEL", &name], b":1\r\n").await
    }

    async fn ask(&mut self, words: &[&str], expected: &[u8]) -> io::Result<()> {
        use std::fmt::Write;
        self.request.clear();
        // Writing to memory cannot fail.
        let _ = write!(self.request, "*{}\r\n", words.len());
        for word in words {
            let _ = write!(self.request, "${}\r\n{word}\r\n", word.len());
        }
        self.stream.write_all(self.request.as_bytes()).await?;
        let mut answer = [0; 64];
        let mut filled = 0;
        while !answer[..filled].ends_with(b"\r\n") {
            match self.stream.read(&mut answer[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        if &answer[..filled] == expected {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&answer[..filled]).into_owned();
        Err(io::Error::other(format!("Redis {words:?}: {text}")))
    }
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_pads_as_the_standard_says() {
        assert_eq!(base64(b"f"), "Zg==");
        assert_eq!(base64(b"fo"), "Zm8=");
        assert_eq!(base64(b"foo"), "Zm9v");
        assert_eq!(base64(b"foob"), "Zm9vYg==");
    }
}
