//! A load generator: keep-alive connections on one thread, each running its own loop of requests.
//!
//! It parses just enough of an answer to know its status, its ticket and where it ends, so that most of
//! the machine is left to the server under test.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

/// As much of an answer as the loops need.
pub struct Answer {
    pub status: u16,
    pub ticket: Option<String>,
    pub body: Vec<u8>,
}

impl Connection {
    pub async fn open(address: &str) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            buffer: vec![0; 64 * 1024],
            filled: 0,
        })
    }

    /// Sends one request and reads its answer.
    pub async fn send(&mut self, request: &[u8]) -> std::io::Result<Answer> {
        self.stream.write_all(request).await?;
        loop {
            if let Some((answer, used)) = parse(&self.buffer[..self.filled]) {
                self.buffer.copy_within(used..self.filled, 0);
                self.filled -= used;
                return Ok(answer);
            }
            if self.filled == self.buffer.len() {
                self.buffer.resize(self.filled * 2, 0);
            }
            let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.filled += read;
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let length = header(head, "content-length").map_or(0, |v| v.parse().unwrap_or(0));
    let used = end + 4 + length;
    let body = bytes.get(end + 4..used)?;
    let answer = Answer {
        status: head.get(9..12)?.parse().ok()?,
        ticket: header(head, "x-ticket").map(str::to_owned),
        body: body.to_vec(),
    };
    Some((answer, used))
}

/// Requests finished, and how long each took.
#[derive(Default)]
pub struct Measured {
    pub requests: u64,
    pub errors: u64,
    pub elapsed: Duration,
    pub latencies_us: Vec<u32>,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds; `p` from 0 to 100.
    pub fn percentile(&mut self, p: f64) -> u32 {
        self.latencies_us.sort_unstable();
        let last = self.latencies_us.len().saturating_sub(1);
        let index = (last as f64 * p / 100.0).round() as usize;
        self.latencies_us.get(index).copied().unwrap_or(0)
    }
}

/// Runs `connections` loops for `duration`. `work` does one round on a connection and returns how many
/// requests it made.
pub async fn run<F>(address: &str, connections: usize, duration: Duration, work: F) -> Measured
where
    F: AsyncFn(usize, usize, &mut Connection) -> std::io::Result<u64>,
{
    let start = Instant::now();
    let until = start + duration;
    let loops = (0..connections).map(|index| {
        let work = &work;
        async move {
            let mut mine = Measured::default();
            let mut connection = Connection::open(address).await?;
            let mut round = 0;
            while Instant::now() < until {
                let began = Instant::now();
                match work(index, round, &mut connection).await {
                    Ok(requests) => {
                        mine.requests += requests;
                        mine.latencies_us.push(began.elapsed().as_micros() as u32);
                    }
                    Err(_) => {
                        mine.errors += 1;
                        connection = Connection::open(address).await?;
                    }
                }
                round += 1;
            }
            Ok::<Measured, std::io::Error>(mine)
        }
    });
    let mut total = Measured::default();
    for mine in futures_util::future::join_all(loops).await {
        match mine {
            Ok(mine) => {
                total.requests += mine.requests;
                total.errors += mine.errors;
                total.latencies_us.extend(mine.latencies_us);
            }
            Err(_) => total.errors += 1,
        }
    }
    total.elapsed = start.elapsed();
    total
}
