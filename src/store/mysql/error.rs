//! Errors of the server and the driver, and what they mean for the store.

use mysql_async::{DriverError, Error, IoError};

use crate::store::StoreError;

/// A failed statement or connection.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The connection was lost, or no answer came in time: the outcome is unknown.
    Away(String),
    /// The server answered with an error; the connection is still there.
    Server {
        code: u16,
        state: String,
        text: String,
    },
    /// An error that this program decided on.
    Store(StoreError),
}

/// Error numbers of MySQL and MariaDB, named as in their manuals.
pub(super) mod code {
    pub const NULL_IN_NOT_NULL: u16 = 1048;
    /// A Galera node that has left its cluster, or has not joined it yet.
    pub const NO_MEMBER: u16 = 1047;
    pub const ACCESS_DENIED: u16 = 1045;
    pub const UNKNOWN_DATABASE: u16 = 1049;
    pub const DUPLICATE: u16 = 1062;
    pub const PACKET_TOO_LARGE: u16 = 1153;
    pub const NO_SUCH_THREAD: u16 = 1094;
    /// `require_secure_transport`.
    pub const TLS_REQUIRED: u16 = 3159;
    pub const NO_SUCH_TABLE: u16 = 1146;
    pub const LOCK_WAIT_TIMEOUT: u16 = 1205;
    /// MySQL: another transaction has locked the row, and the statement does not wait (`NOWAIT`).
    pub const LOCKED: u16 = 3572;
    pub const DEADLOCK: u16 = 1213;
    /// A text cannot be converted to a character set that the server uses itself.
    pub const NOT_CONVERTED: u16 = 3854;
    /// InnoDB's row or LOB limits.
    pub const ROW_TOO_LARGE: [u16; 2] = [1118, 1713];
    /// A locking read found its snapshot outdated (`innodb_snapshot_isolation`).
    pub const RECORD_CHANGED: u16 = 1020;
    /// A statement exceeded its time limit: MariaDB's number and MySQL's.
    pub const STATEMENT_TIMEOUT: [u16; 2] = [1969, 3024];
    /// Another member of the cluster committed first, as Galera and Group Replication say at the end of a
    /// transaction.
    pub const NOT_CERTIFIED: [u16; 2] = [3101, 1180];
}

const UNTRUSTED: &str = "MYSQL_TLS and MYSQL_TLS_CA_FILE say which certificates are trusted";

/// The driver reports a failure of TLS as a failed read or write.
fn is_about_tls(error: &std::io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|cause| cause.is::<rustls::Error>())
}

impl Fault {
    /// The server rolled the statement back because of another transaction; the same statement may succeed now.
    pub fn is_passing(&self) -> bool {
        let codes = [
            code::LOCK_WAIT_TIMEOUT,
            code::LOCKED,
            code::DEADLOCK,
            code::RECORD_CHANGED,
        ];
        let mut codes = codes.into_iter().chain(code::NOT_CERTIFIED);
        codes.any(|code| self.is(code))
    }

    pub fn is(&self, wanted: u16) -> bool {
        matches!(self, Fault::Server { code, .. } if *code == wanted)
    }

    /// The error is about the shape or content of the tables, so the same statement fails each time. Not about
    /// a connection, an account or a server that is busy, full, read-only or shutting down.
    fn is_lasting(&self) -> bool {
        const DENIED: [u16; 7] = [1044, 1142, 1143, 1203, 1226, 1227, 1370];
        const ABOUT_TABLES: [u16; 11] = [
            1005, 1031, 1071, 1215, 1265, 1286, 1366, 1503, 1709, 1833, 3780,
        ];
        let Fault::Server { code, state, .. } = self else {
            return false;
        };
        let class = state.get(..2).unwrap_or_default();
        let lasting = matches!(class, "0A" | "21" | "22" | "23" | "42") && !DENIED.contains(code);
        lasting || ABOUT_TABLES.contains(code)
    }

    /// The fault of a connection that could not be made, with a hint at the settings that may be the cause.
    /// `by_tls`: TLS was asked for.
    pub fn of_connecting(error: Error, by_tls: bool) -> Fault {
        let hint = match &error {
            Error::Driver(DriverError::NoClientSslFlagFromServer) => {
                "the database offers no TLS, and MYSQL_TLS demands it"
            }
            Error::Io(IoError::Tls(_)) => UNTRUSTED,
            Error::Io(IoError::Io(error)) if is_about_tls(error) => UNTRUSTED,
            Error::Server(error) if error.code == code::TLS_REQUIRED => {
                "the database demands TLS: set MYSQL_TLS"
            }
            Error::Server(error) if error.code == code::ACCESS_DENIED && !by_tls => {
                "MYSQL_USER or MYSQL_PASSWORD is wrong, or the account may connect by TLS only (MYSQL_TLS)"
            }
            Error::Server(error) if error.code == code::ACCESS_DENIED => {
                "MYSQL_USER or MYSQL_PASSWORD is wrong"
            }
            _ => return error.into(),
        };
        Fault::from(error).reworded(|text| format!("{text} ({hint})"))
    }

    /// The fault of a connection that could not be made, with the place of the server before its text.
    pub fn at(self, place: &str) -> Fault {
        self.reworded(|text| format!("{place}: {text}"))
    }

    fn reworded(self, reword: impl FnOnce(String) -> String) -> Fault {
        match self {
            Fault::Away(text) => Fault::Away(reword(text)),
            Fault::Server { code, state, text } => Fault::Server {
                code,
                state,
                text: reword(text),
            },
            decided => decided,
        }
    }

    /// The fault of a failed migration: [`StoreError::Unusable`] if it would fail each time.
    pub fn stops_migration(self) -> Fault {
        match &self {
            Fault::Server { code, text, .. } if self.is_lasting() => {
                let text =
                    format!("its tables cannot be brought up to date: {text} (error {code})");
                StoreError::Unusable(text).into()
            }
            _ => self,
        }
    }

    /// The error of a failed read: [`StoreError::Rejected`] if it would fail each time, [`StoreError::TooSlow`]
    /// if it exceeded its time limit.
    pub fn of_read(self) -> StoreError {
        match &self {
            Fault::Server { code, text, .. } if self.is_lasting() => {
                StoreError::Rejected(format!("{text} (error {code})"))
            }
            Fault::Server { code, text, .. } if code::STATEMENT_TIMEOUT.contains(code) => {
                StoreError::TooSlow(format!("{text} (error {code})"))
            }
            _ => self.into(),
        }
    }

    /// Whether the connection can be used further.
    pub fn leaves_connection(&self) -> bool {
        !matches!(self, Fault::Away(_))
            && !self.is(code::PACKET_TOO_LARGE)
            && !self.is(code::NO_MEMBER)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        match error {
            Error::Server(error) => Fault::Server {
                code: error.code,
                state: error.state,
                text: error.message,
            },
            Error::Io(IoError::Io(error)) => Fault::Away(error.to_string()),
            error => Fault::Away(error.to_string()),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Store(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> StoreError {
        match fault {
            Fault::Away(text) => StoreError::Unavailable(text),
            Fault::Store(error) => error,
            Fault::Server { code, state, text } => {
                let text = format!("{text} (error {code}, state {state})");
                if is_about_the_data(code, &state) {
                    StoreError::Rejected(text)
                } else {
                    StoreError::Unavailable(text)
                }
            }
        }
    }
}

/// SQLSTATE classes 22 (data exception) and 23 (integrity constraint), and errors about data that have other
/// classes.
fn is_about_the_data(code: u16, state: &str) -> bool {
    const INCORRECT_VALUE: [u16; 3] = [1366, 1300, 1265];
    state.starts_with("22")
        || state.starts_with("23")
        || code == code::PACKET_TOO_LARGE
        || code::ROW_TOO_LARGE.contains(&code)
        || INCORRECT_VALUE.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store_error(code: u16, state: &str) -> StoreError {
        let fault = Fault::Server {
            code,
            state: state.into(),
            text: "t".into(),
        };
        fault.into()
    }

    #[test]
    fn data_errors_reject_and_everything_else_is_an_outage() {
        for (code, state) in [
            (1406, "22001"),
            (1366, "22007"),
            (1366, "HY000"),
            (1062, "23000"),
            (1153, "08S01"),
            (1118, "42000"),
        ] {
            assert!(matches!(store_error(code, state), StoreError::Rejected(_)));
        }
        for (code, state) in [
            (1290, "HY000"),
            (1792, "25006"),
            (1021, "HY000"),
            (1114, "HY000"),
            (1045, "28000"),
            (1142, "42000"),
            (1317, "70100"),
        ] {
            assert!(matches!(
                store_error(code, state),
                StoreError::Unavailable(_)
            ));
        }
    }
}
