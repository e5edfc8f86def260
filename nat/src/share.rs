//! How the host's descriptors are shared among containers.
//!
//! Each connection, and each UDP or echo mapping, is a descriptor of the packet process, whose number is limited. Without
//! a rule one container that opens sockets without end would leave none to the others of its network. The rule is the
//! dynamic threshold of shared packet buffers (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998): a
//! container may hold at most [`WEIGHT`] times as many as are still free. Alone it gets 8/9 of all, the second to ask
//! gets 8/9 of the rest, and there is always something left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use hashbrown::HashMap;
use pontoon_switch::PortId;

/// A container may hold this many sockets for each that is free.
const WEIGHT: u32 = 8;

/// What one container holds.
#[derive(Debug)]
struct Account {
    held: AtomicU32,
    all: Arc<AtomicU32>,
}

/// The right to one host socket; dropping it gives it back.
#[derive(Debug)]
pub struct Ticket(Arc<Account>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
        self.0.all.fetch_sub(1, Relaxed);
    }
}

/// Who holds how many host sockets. Counters are atomic only to let a ticket be dropped wherever it lies.
#[derive(Debug)]
pub struct Shares {
    limit: u32,
    all: Arc<AtomicU32>,
    accounts: HashMap<PortId, Arc<Account>>,
}

impl Default for Shares {
    /// Without a limit.
    fn default() -> Self {
        Self::new(u32::MAX)
    }
}

impl Shares {
    /// At most `limit` sockets in all.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            all: Arc::new(AtomicU32::new(0)),
            accounts: HashMap::new(),
        }
    }

    /// One more socket for the container at `port`; `None` if its share is used up.
    pub fn ticket(&mut self, port: PortId) -> Option<Ticket> {
        let account = self.accounts.entry(port).or_insert_with(|| {
            Arc::new(Account {
                held: AtomicU32::new(0),
                all: self.all.clone(),
            })
        });
        let free = self.limit.saturating_sub(self.all.load(Relaxed));
        if account.held.load(Relaxed) >= free.saturating_mul(WEIGHT) {
            return None;
        }
        account.held.fetch_add(1, Relaxed);
        self.all.fetch_add(1, Relaxed);
        Some(Ticket(account.clone()))
    }

    /// The container at `port` is gone; what it still holds is given back all the same.
    pub fn detach(&mut self, port: PortId) {
        self.accounts.remove(&port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(shares: &mut Shares, port: u32) -> Vec<Ticket> {
        std::iter::from_fn(|| shares.ticket(PortId(port))).collect()
    }

    #[test]
    fn the_greedy_leave_something_to_each_that_comes_later() {
        let mut shares = Shares::new(9000);
        let first = take_all(&mut shares, 1);
        assert_eq!(first.len(), 8000);
        let second = take_all(&mut shares, 2);
        assert_eq!(second.len(), 889);
        assert_eq!(take_all(&mut shares, 3).len(), 99);
        drop(first);
        assert!(take_all(&mut shares, 3).len() > 6000);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut shares = Shares::new(90);
        let held = take_all(&mut shares, 1);
        assert!(shares.ticket(PortId(1)).is_none());
        shares.detach(PortId(1));
        drop(held);
        assert_eq!(shares.all.load(Relaxed), 0);
        assert_eq!(take_all(&mut shares, 1).len(), 80);
    }

    #[test]
    fn without_a_limit_nobody_is_refused() {
        let mut shares = Shares::default();
        let held: Vec<_> = (0..100_000)
            .map(|_| shares.ticket(PortId(1)).expect("no limit"))
            .collect();
        assert_eq!(held.len(), 100_000);
    }
}
