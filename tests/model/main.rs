//! The lock core against a model that is too simple to be wrong.
//!
//! | file | what it holds |
//! |---|---|
//! | `reference` | the contract's model again: a plain list, no index, no timer |
//! | `beliefs` | what clients may rightly believe |
//! | `history` | random histories, compared answer by answer (proptest) |

mod beliefs;
mod history;
mod reference;
