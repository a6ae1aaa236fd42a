//! The lock core against a model that is too simple to be wrong, and under a model checker.
//!
//! | file | what it holds |
//! |---|---|
//! | `reference` | the contract's model again: a plain list, no index, no timer |
//! | `beliefs` | what clients may rightly believe |
//! | `history` | random histories, compared answer by answer (proptest) |
//! | `server` | a server around the core, sound or broken in one of several ways |
//! | `checker` | clients, network, clock and crashes as a state space (stateright) |
//! | `linear` | the sequential object that histories must be linearizable to |
//! | `proof` | the sound server in every interleaving, the broken ones until they are caught |
//! | `cluster` | several instances on one database, likewise |
//! | `walk` | how both walk through their states |

mod beliefs;
mod checker;
mod cluster;
mod history;
mod linear;
mod proof;
mod reference;
mod server;
mod walk;
