//! Which server a connection leads to. A host name may lead to several servers, and to other ones later.

use std::collections::HashMap;
use std::net::SocketAddr;

/// A database server, as its variables describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub address: SocketAddr,
    /// `@@server_uuid`; in MariaDB, which has none, host name and port.
    pub id: String,
    /// Whether it is a member of a cluster whose servers hold the same data and refuse conflicting commits:
    /// Galera, Group Replication.
    pub is_member: bool,
    pub is_read_only: bool,
}

impl Server {
    pub fn of(address: SocketAddr, variables: &HashMap<String, String>) -> Server {
        let value = |name: &str| variables.get(name).map_or("", String::as_str);
        let is_on = |name: &str| !matches!(value(name), "" | "OFF" | "0");
        let id = match value("server_uuid") {
            "" => format!("{}:{}", value("hostname"), value("port")),
            uuid => uuid.to_owned(),
        };
        let read_only = ["read_only", "super_read_only", "innodb_read_only"];
        Server {
            address,
            id,
            is_member: is_on("wsrep_on") || is_on("group_replication_group_name"),
            is_read_only: read_only.into_iter().any(is_on),
        }
    }

    /// Why a connection to this server cannot be used; `None`: it can. `home`: the server that the writer is
    /// connected to. Reads on this one have to see what was committed there.
    pub fn objection(&self, home: Option<&Server>) -> Option<String> {
        let Server { id, address, .. } = self;
        let agrees = |home: &Server| *id == home.id || (self.is_member && home.is_member);
        match home {
            Some(home) if !agrees(home) => Some(format!(
                "connections lead to different servers: to {id} at {address}, and to {} at {}",
                home.id, home.address
            )),
            _ if self.is_read_only => Some(format!("the server {id} at {address} is read-only")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(pairs: &[(&str, &str)]) -> Server {
        let pairs = pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Server::of("127.0.0.1:3306".parse().unwrap(), &pairs.collect())
    }

    #[test]
    fn members_of_a_cluster_agree_and_a_read_only_server_is_of_no_use() {
        let one = server(&[("hostname", "a"), ("wsrep_on", "ON")]);
        let other = server(&[("hostname", "b"), ("wsrep_on", "ON")]);
        assert_eq!(one.objection(Some(&other)), None);
        for name in ["read_only", "super_read_only", "innodb_read_only"] {
            assert!(server(&[(name, "ON")]).objection(None).is_some());
        }
    }
}
