//! Settings as types, where each came from, and why one was refused.
//!
//! Variables come from the process environment and from one file in the dotenv format of the original
//! server; the environment wins. Everything is read, checked and reported once, at the start: past this
//! module a setting is a value that cannot be wrong. Nothing here changes the environment.
//!
//! Neighbours: `cli` chooses the file and prints the summary; `app`, `http` and `store` take
//! their part of [`Settings`].
//!
//! | file | what it holds |
//! |---|---|
//! | `settings` | the types the rest of the program sees |
//! | `variables` | every variable there is: name, default, meaning |
//! | `dotenv` | the text of a configuration file to names and values |
//! | `keys` | keys, in variables and in `KEYS_FILE`, and the right that each carries |
//! | `store` | where state is kept |
//! | `sources` | which file is read; environment over file |
//! | `parse` | one variable to one typed value, or a problem |
//! | `tls` | the certificate and key that the settings name |
//! | `read` | all variables to [`Settings`], and the checks across them |
//! | `summary` | the lines for the start-up log |
//! | `memory` | what a container may have |
//! | `misspelt` | unknown names that look like known ones |
//! | `error` | problems, all at once, as sentences |

mod dotenv;
mod error;
mod keys;
mod memory;
mod misspelt;
mod parse;
mod read;
mod secret;
mod settings;
mod sources;
mod store;
mod summary;
mod tls;
pub mod variables;

pub use error::{ConfigError, EXIT_CONFIG, Problem};
pub use keys::{Keys, PLAIN_KEYS, PlainKey, Right, ScopedKey, key_hash};
pub use secret::Secret;
pub use settings::{HttpSettings, Settings, StoreKind, TlsFiles};
pub use sources::{Origins, SetVariable, SettingOrigin};
