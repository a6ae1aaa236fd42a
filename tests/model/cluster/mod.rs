//! Several instances on one database, as a state space: how a slot of names is owned, given away and taken from an
//! instance that is silent, so that nothing acknowledged is lost and no token is given twice.
//!
//! The protocol in short. An instance has a row, which it changes with each heartbeat, and a log of its own. Each of
//! its transactions appends the next row of that log. Whoever finds another one silent for a lease *fences* it: in
//! one transaction it marks that row and takes the next position of the log with a *seal*. Only one row can be at a
//! position, on any node of the database: so nothing of the fenced one lands afterwards, and whoever fenced it has
//! everything that it was told is stored. Then the log is replayed into the tables, and only then are its names
//! served again.
//! An instance that does not know what became of its last commit does the same to itself.
//!
//! The names are divided into slots, which are given from one to another as well. In settings with `one_owner` one
//! instance has all of it, and the others wait until they take its place: so it is while a database is not ready yet.
//!
//! | file | what it holds |
//! |---|---|
//! | `database` | rows, and nodes that lag |
//! | `transactions` | what instances ask of it |
//! | `world` | processes, clients, what may happen, and what must not |
//! | `faults` | how it could be broken |
//! | `proof` | the protocol in every order of steps; the broken ones until they are caught |
//! | `shares` | which slots move when instances come and go |

mod database;
mod faults;
mod proof;
mod shares;
mod transactions;
mod world;
