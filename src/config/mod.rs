//! Settings as types, where each came from, and why one was refused.
//!
//! Variables come from the process environment and from one file in the dotenv format of the original
//! server; the environment wins. All of them are read and checked together, at the start and at each reload, and
//! every problem is reported: the rest of the program gets valid values only. Nothing here changes the environment.
//!
//! | file | what it holds |
//! |---|---|
//! | `settings` | the types the rest of the program sees |
//! | `variables` | the list of all variables: name, default, meaning |
//! | `dotenv` | parses the text of a configuration file |
//! | `keys` | keys, in variables and in `KEYS_FILE`, and the right of each |
//! | `store` | the variables about the store |
//! | `sources` | which file is read; the environment wins over it |
//! | `parse` | turns one variable into a typed value, or a problem |
//! | `tls` | the certificate and key that the settings name |
//! | `read` | turns all variables into [`Settings`], and checks those that depend on each other |
//! | `summary` | the lines for the start-up log |
//! | `memory` | the memory limit of a container |
//! | `misspelt` | unknown names that look like known ones |

mod dotenv;
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

pub use keys::{Keys, Right, ScopedKey, key_hash, plain_key_variables};
pub use secret::Secret;
pub use settings::{HttpSettings, Settings, StoreKind};
pub use sources::{Origins, SettingOrigin, secret_in};

/// The exit code when the settings prevent the start (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;
