//! Types that cannot hold an invalid value: parsed once where requests come in, and trusted everywhere else.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use smol_str::SmolStr;

/// Milliseconds: a duration, or a time on the monotonic clock of this process.
pub type Millis = u64;

/// Milliseconds since the Unix epoch. Stored and shown to people; no rule depends on it.
pub type WallMillis = u64;

/// The current time, by both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Now {
    /// Decides expiry, nearness and waits.
    pub mono: Millis,
    /// Information only: `acquiredAt` and `expiresAt`.
    pub wall: WallMillis,
}

impl Now {
    /// This time of the monotonic clock by the wall clock.
    pub fn wall_at(self, mono: Millis) -> WallMillis {
        (self.wall + mono).saturating_sub(self.mono)
    }
}

/// Whole seconds, 0 to [`Seconds::MAX`]. As a duration, zero means "without limit".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Seconds(u32);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = u32::deserialize(deserializer)?;
        Seconds::new(i64::from(value)).ok_or_else(|| de::Error::custom("seconds above the maximum"))
    }
}

impl Seconds {
    /// The largest value that an integer column of the PHP server's schema can hold.
    pub const MAX: u32 = 2_147_483_647;
    pub const ZERO: Seconds = Seconds(0);

    /// `None` when the value is negative or above [`Seconds::MAX`].
    pub fn new(value: i64) -> Option<Seconds> {
        (0..=i64::from(Self::MAX))
            .contains(&value)
            .then_some(Seconds(value as u32))
    }

    pub fn get(self) -> u32 {
        self.0
    }

    /// The duration in milliseconds, or `None` for "without limit".
    pub fn limit_ms(self) -> Option<Millis> {
        (self.0 > 0).then(|| u64::from(self.0) * 1000)
    }
}

/// How long a lease lasts after each renewal, in milliseconds. Zero: it does not expire.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Ttl(Millis);

impl Ttl {
    pub const ZERO: Ttl = Ttl(0);

    /// `None` when the value is above [`Seconds::MAX`] in milliseconds.
    pub fn from_millis(millis: Millis) -> Option<Ttl> {
        (millis <= u64::from(Seconds::MAX) * 1000).then_some(Ttl(millis))
    }

    pub fn millis(self) -> Millis {
        self.0
    }

    /// The duration in milliseconds, or `None` for "without limit".
    pub fn limit_ms(self) -> Option<Millis> {
        (self.0 > 0).then_some(self.0)
    }
}

impl From<Seconds> for Ttl {
    fn from(seconds: Seconds) -> Ttl {
        Ttl(u64::from(seconds.0) * 1000)
    }
}

/// Beside which other leases a lease may hold the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Alone; on a resource with slots, beside other exclusive leases, up to the number of slots.
    #[default]
    Exclusive = 0,
    /// Beside other shared leases.
    Shared = 1,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Exclusive => "exclusive",
            Mode::Shared => "shared",
        }
    }

    /// The number that stores keep.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The inverse of [`Mode::number`].
    pub fn of_number(number: u8) -> Option<Mode> {
        let all = [Mode::Exclusive, Mode::Shared];
        all.into_iter().find(|mode| mode.number() == number)
    }
}

/// The options of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResourceOptions {
    /// TTL of its leases or, in the `php` profile, how long requests wait. Zero: without limit.
    pub timeout: Seconds,
    /// How many exclusive leases may hold at once: 1 to [`ResourceOptions::SLOTS_MAX`].
    pub slots: u16,
    /// For how many seconds the lock is granted to nobody after a lease expired or was forced off: 0 to
    /// [`ResourceOptions::LOCK_DELAY_MAX`].
    pub lock_delay: u8,
    /// The resource is removed as soon as nobody holds or waits and it has no documents.
    pub ephemeral: bool,
}

impl ResourceOptions {
    pub const SLOTS_MAX: u16 = 1000;
    pub const LOCK_DELAY_MAX: u8 = 60;

    /// One slot and no lock-delay.
    pub fn plain(timeout: Seconds) -> ResourceOptions {
        ResourceOptions {
            timeout,
            slots: 1,
            lock_delay: 0,
            ephemeral: false,
        }
    }

    /// The options of a resource that `?create=1` on lock makes.
    pub fn ephemeral() -> ResourceOptions {
        ResourceOptions {
            ephemeral: true,
            ..ResourceOptions::plain(Seconds::ZERO)
        }
    }

    /// Whether all options but the timeout have their default: then only the timeout is stored.
    pub fn is_plain(&self) -> bool {
        *self == ResourceOptions::plain(self.timeout)
    }

    pub fn lock_delay_ms(&self) -> Millis {
        u64::from(self.lock_delay) * 1000
    }
}

impl Default for ResourceOptions {
    fn default() -> Self {
        ResourceOptions::plain(Seconds::ZERO)
    }
}

fn check_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("must not be empty; accepted are 1 to 255 characters");
    }
    // A text of at most 255 bytes has at most 255 characters: most texts need no counting.
    if text.len() > 255 && text.chars().count() > 255 {
        return Err("is longer than 255 characters; accepted are 1 to 255 characters");
    }
    if text.chars().any(char::is_control) {
        return Err(
            "contains a control character; accepted is any text without control characters",
        );
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        pub struct $name(SmolStr);

        impl $name {
            /// Takes 1 to 255 characters, none of them a control character.
            ///
            /// # Errors
            ///
            /// What is wrong with the text: the rest of a sentence whose subject is the text.
            pub fn parse(text: &str) -> Result<Self, &'static str> {
                check_name(text)?;
                Ok(Self(SmolStr::new(text)))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// The name of a resource, and so of its lock. Compared byte for byte.
    ResourceName
);
name_type!(
    /// The name of one JSON document of a resource. No part of the lock. Compared byte for byte.
    Selector
);
name_type!(
    /// What a client calls itself: shown to others, never trusted. Same characters as a name.
    Owner
);
name_type!(
    /// Why a client wants the lock, or an operator ended a lease: for people. Same characters as a name.
    Reason
);
name_type!(
    /// The name that the operator gave an API key; never the key itself.
    KeyName
);

/// A client's name for one attempt to lock, by which a retry finds its ticket.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// `None` unless the text is 1 to 255 visible ASCII characters.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(Arc::from(text)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for IdempotencyKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not an idempotency key"))
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(..)")
    }
}

/// An unguessable capability: one place in the queue, then one lease.
///
/// Written as 32 lowercase hexadecimal digits. `Debug` hides them, so that no log line can leak a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    // Not a u128: that is aligned to 16 bytes, and an `Option<Ticket>` would take 32.
    high: u64,
    low: u64,
}

const NO_DIGIT: u8 = u8::MAX;

/// The value of each byte as a lowercase hexadecimal digit, or [`NO_DIGIT`].
const HEX_VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[HEX[value] as usize] = value as u8;
        value += 1;
    }
    values
};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// `None` unless these are 16 lowercase hexadecimal digits.
fn from_digits(digits: &[u8]) -> Option<u64> {
    let digits: &[u8; 16] = digits.try_into().ok()?;
    digits.iter().try_fold(0_u64, |bits, digit| {
        let value = HEX_VALUES[usize::from(*digit)];
        (value != NO_DIGIT).then_some(bits << 4 | u64::from(value))
    })
}

impl Ticket {
    /// A ticket from 128 random bits.
    pub fn from_bits(bits: u128) -> Ticket {
        Ticket {
            high: (bits >> u64::BITS) as u64,
            low: bits as u64,
        }
    }

    pub fn bits(self) -> u128 {
        u128::from(self.high) << u64::BITS | u128::from(self.low)
    }

    /// `None` unless the text is 32 lowercase hexadecimal digits.
    pub fn parse(text: &str) -> Option<Ticket> {
        // In two halves: shifting digits into a u64 is several times as fast as into a u128.
        let (high, low) = text.as_bytes().split_at_checked(16)?;
        Some(Ticket {
            high: from_digits(high)?,
            low: from_digits(low)?,
        })
    }

    /// The id that names this ticket to those who must not learn the ticket.
    pub fn id(self) -> TicketId {
        let digest = Sha256::digest(self.digits());
        let first = digest.iter().take(size_of::<u64>());
        TicketId(first.fold(0, |bits, byte| bits << 8 | u64::from(*byte)))
    }

    pub fn digits(self) -> [u8; 32] {
        hex_digits(self.bits())
    }
}

/// The 32 lowercase hexadecimal digits of a number, without an allocation.
pub fn hex_digits(number: u128) -> [u8; 32] {
    let mut out = [0; 32];
    for (i, byte) in number.to_be_bytes().into_iter().enumerate() {
        out[2 * i] = HEX[usize::from(byte >> 4)];
        out[2 * i + 1] = HEX[usize::from(byte & 15)];
    }
    out
}

impl Serialize for Ticket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u128(self.bits())
    }
}

impl<'de> Deserialize<'de> for Ticket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u128::deserialize(deserializer).map(Ticket::from_bits)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.bits())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(..)")
    }
}

/// The id of a ticket, for where the ticket itself must not be told: the first 64 bits of the SHA-256 of its 32
/// digits. Written as 16 lowercase hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TicketId(u64);

impl TicketId {
    /// `None` unless the text is 16 lowercase hexadecimal digits.
    pub fn parse(text: &str) -> Option<TicketId> {
        from_digits(text.as_bytes()).map(TicketId)
    }
}

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for TicketId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TicketId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not the id of a ticket"))
    }
}

/// A number that grows with every grant of a name and is never reset. By it the system that the lock protects
/// can refuse writes of a holder that lost its lease (Kleppmann, "How to do distributed locking", 2016).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct FencingToken(pub u64);

impl FencingToken {
    /// The token of the next grant.
    ///
    /// # Panics
    ///
    /// After the greatest token, which no number of grants reaches: a token that is not greater would fence nothing.
    pub fn next(self) -> FencingToken {
        let next = self.0.checked_add(1);
        FencingToken(next.expect("no lock has so many grants"))
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_32_lowercase_hexadecimal_digits() {
        let text = "2ae20fe4111f441cb289e01cf46ed0d6";
        let ticket = Ticket::parse(text).unwrap();
        assert_eq!(ticket.to_string(), text);
        assert_eq!(&ticket.digits(), text.as_bytes());
        assert_eq!(Ticket::parse(&text.to_uppercase()), None);
        assert_eq!(Ticket::parse("0"), None);
        assert_eq!(Ticket::parse("+ae20fe4111f441cb289e01cf46ed0d6"), None);
    }

    #[test]
    fn the_id_of_a_ticket_is_the_beginning_of_its_sha_256() {
        let ticket = Ticket::parse("2ae20fe4111f441cb289e01cf46ed0d6").unwrap();
        // printf %s 2ae20fe4111f441cb289e01cf46ed0d6 | sha256sum | cut -c1-16
        assert_eq!(ticket.id().to_string(), "ba84cb36668c16c2");
        assert_eq!(TicketId::parse("ba84cb36668c16c2"), Some(ticket.id()));
        for bad in [
            "",
            "ba84cb36668c16c",
            "+123456789012345",
            "0123456789ABCDEF",
            "0123456789abcdef0",
        ] {
            assert_eq!(TicketId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn neither_a_ticket_nor_a_key_shows_in_debug_output() {
        let ticket = Ticket::from_bits(0xdead_beef);
        assert!(!format!("{ticket:?}").contains("beef"));
        let key = IdempotencyKey::parse("secret").unwrap();
        assert!(!format!("{key:?}").contains("secret"));
    }
}
