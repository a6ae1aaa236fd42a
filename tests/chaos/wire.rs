//! A client's connection, which may break at any byte, on either side.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::support::{Answer, Connection};

/// How the client leaves before it has its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    /// After this part of the request's bytes, in percent.
    MidRequest(u64),
    /// After the request, and this long a wait for the first bytes of the answer.
    MidAnswer(Duration),
}

#[derive(Debug, PartialEq)]
pub enum Failure {
    /// The request cannot have reached the server.
    NotSent,
    /// It may have.
    Lost,
}

/// Made anew whenever it broke or leads elsewhere.
#[derive(Default)]
pub struct Wire {
    open: Option<(SocketAddr, Connection)>,
}

impl Wire {
    /// One request and its answer. After a failure the connection is closed.
    pub fn exchange(
        &mut self,
        to: SocketAddr,
        bytes: &[u8],
        limit: Duration,
        cut: Option<Cut>,
    ) -> Result<Answer, Failure> {
        let kept = self.open.take().filter(|(address, _)| *address == to);
        let mut connection = match kept {
            Some((_, connection)) => connection,
            None => Connection::try_to(to).map_err(|_| Failure::NotSent)?,
        };
        if let Some(cut) = cut {
            leave_early(connection, bytes, cut);
            return Err(Failure::Lost);
        }
        let stream = &mut connection.stream;
        stream.set_read_timeout(Some(limit)).unwrap();
        stream.write_all(bytes).map_err(|_| Failure::Lost)?;
        let answer = connection.try_answer(false).map_err(|_| Failure::Lost)?;
        answer.check();
        if answer.header("Connection") != Some("close") {
            self.open = Some((to, connection));
        }
        Ok(answer)
    }
}

fn leave_early(mut connection: Connection, bytes: &[u8], cut: Cut) {
    let sent = match cut {
        Cut::MidRequest(percent) => bytes.len() * percent as usize / 100,
        Cut::MidAnswer(_) => bytes.len(),
    };
    // Whatever fails here, this connection is over.
    connection.try_write(&bytes[..sent]);
    if let Cut::MidAnswer(wait) = cut {
        let wait = wait.max(Duration::from_millis(1));
        let _ = connection.stream.set_read_timeout(Some(wait));
        let _ = connection.stream.read(&mut [0; 7]);
    }
    connection.reset();
}
