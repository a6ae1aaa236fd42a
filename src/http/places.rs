//! How many connections may be open, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections beyond the limit that are told so; past them a connection is just closed, because telling
/// takes a place, too.
const TOLD_MAX: usize = 256;

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    /// Say so, then close it.
    Tell,
    Close,
}

#[derive(Default)]
struct Open {
    all: usize,
    told: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The places of all workers.
pub struct Places {
    max: usize,
    per_address_max: usize,
    open: Mutex<Open>,
}

impl Places {
    /// `max` connections in all, of which one address may have `per_address_max`.
    pub fn new(max: usize, per_address_max: usize) -> Arc<Places> {
        Arc::new(Places {
            max,
            per_address_max,
            open: Mutex::default(),
        })
    }

    /// A place for a connection. An address that is `shared` by many clients, a proxy's, may take them all.
    pub fn take(self: &Arc<Self>, address: IpAddr, shared: bool) -> Result<Place, Crowded> {
        let mut open = self.lock();
        let of_address = open.by_address.get(&address).copied().unwrap_or(0);
        if open.all >= self.max || (!shared && of_address >= self.per_address_max) {
            return Err(if open.told < TOLD_MAX {
                Crowded::Tell
            } else {
                Crowded::Close
            });
        }
        open.all += 1;
        *open.by_address.entry(address).or_default() += 1;
        Ok(Place {
            places: self.clone(),
            address: Some(address),
        })
    }

    /// A place for a connection that is only told that there is none.
    pub fn take_to_tell(self: &Arc<Self>) -> Place {
        self.lock().told += 1;
        Place {
            places: self.clone(),
            address: None,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Given back when dropped.
pub struct Place {
    places: Arc<Places>,
    /// `None`: of a connection that is being refused.
    address: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.lock();
        let Some(address) = self.address else {
            open.told -= 1;
            return;
        };
        open.all -= 1;
        if let Some(count) = open.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let places = Places::new(3, 2);
        let first = places.take(address(1), false).ok();
        let _second = places.take(address(1), false).ok().unwrap();
        assert_eq!(places.take(address(1), false).err(), Some(Crowded::Tell));
        let _other = places.take(address(2), false).ok().unwrap();
        assert_eq!(places.take(address(3), false).err(), Some(Crowded::Tell));
        drop(first);
        assert!(places.take(address(1), false).is_ok());
    }

    #[test]
    fn a_proxys_address_may_take_them_all_and_all_are_given_back() {
        let places = Places::new(3, 1);
        let taken: Vec<_> = (0..3)
            .map(|_| places.take(address(1), true).ok().unwrap())
            .collect();
        assert!(places.take(address(1), true).is_err());
        drop(taken);
        assert!(places.lock().by_address.is_empty());
        assert_eq!(places.lock().all, 0);
    }

    #[test]
    fn only_so_many_are_told() {
        let places = Places::new(0, 0);
        let told: Vec<_> = (0..TOLD_MAX).map(|_| places.take_to_tell()).collect();
        assert_eq!(places.take(address(1), false).err(), Some(Crowded::Close));
        drop(told);
        assert_eq!(places.take(address(1), false).err(), Some(Crowded::Tell));
    }
}
