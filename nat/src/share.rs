//! How the host's descriptors are shared among containers.
//!
//! Each connection, and each UDP or echo mapping, is a descriptor of the packet process, whose number is limited. Without
//! a rule one container that opens sockets without end would leave none to the others of its network. The rule is the
//! dynamic threshold of shared packet buffers (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998): a
//! container may hold at most [`WEIGHT`] times as many as are still free. The first to ask gets 8/9 of all, the second
//! 8/9 of the rest, and there is always something left.
//!
//! A container that is the only one of its network, as `pontoon run` makes them, has nobody to leave a ninth to: it may hold
//! [`ALONE`] times as many as are free, all but a 128th. That is what those who come later find, if it holds them all by
//! then; it gets no more until it is within its share again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use hashbrown::HashMap;
use pontoon_switch::PortId;

/// A container may hold this many sockets for each that is free.
pub(crate) const WEIGHT: u32 = 8;
/// The same for one that is alone.
pub(crate) const ALONE: u32 = 127;

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
    /// Descriptors within the limit that are of no container.
    kept: u32,
    all: Arc<AtomicU32>,
    accounts: HashMap<PortId, Arc<Account>>,
    /// How often a socket was asked for.
    asked: u64,
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
            kept: 0,
            all: Arc::new(AtomicU32::new(0)),
            accounts: HashMap::new(),
            asked: 0,
        }
    }

    /// At most `limit` sockets in all from now on.
    pub fn limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// So many descriptors are held besides those with tickets: published ports.
    pub fn keep(&mut self, descriptors: usize) {
        self.kept = u32::try_from(descriptors).unwrap_or(u32::MAX);
    }

    /// There is a container at `port`.
    pub fn attach(&mut self, port: PortId) {
        self.account(port);
    }

    fn account(&mut self, port: PortId) -> &Arc<Account> {
        self.accounts.entry(port).or_insert_with(|| {
            Arc::new(Account {
                held: AtomicU32::new(0),
                all: self.all.clone(),
            })
        })
    }

    /// One more socket for the container at `port`; `None` if its share is used up.
    pub fn ticket(&mut self, port: PortId) -> Option<Ticket> {
        self.asked += 1;
        let free = self
            .limit
            .saturating_sub(self.kept)
            .saturating_sub(self.all.load(Relaxed));
        let account = self.account(port).clone();
        let weight = if self.accounts.len() > 1 { WEIGHT } else { ALONE };
        if account.held.load(Relaxed) >= free.saturating_mul(weight) {
            return None;
        }
        account.held.fetch_add(1, Relaxed);
        self.all.fetch_add(1, Relaxed);
        Some(Ticket(account))
    }

    /// How often a socket was asked for so far. One that was refused cost as much: another was closed for it.
    pub fn asked(&self) -> u64 {
        self.asked
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
        (1..=3).for_each(|port| shares.attach(PortId(port)));
        let first = take_all(&mut shares, 1);
        assert_eq!(first.len(), 8000);
        let second = take_all(&mut shares, 2);
        assert_eq!(second.len(), 889);
        assert_eq!(take_all(&mut shares, 3).len(), 99);
        drop(first);
        assert!(take_all(&mut shares, 3).len() > 6000);
    }

    /// 20,000 descriptors are common (`ulimit -Hn`), of which the packet process keeps 320.
    #[test]
    fn one_that_is_alone_gets_nearly_all() {
        let mut shares = Shares::new(20_000 - 320);
        shares.attach(PortId(1));
        let first = take_all(&mut shares, 1);
        assert!(first.len() >= 19_500, "{}", first.len());
        shares.attach(PortId(2));
        let second = take_all(&mut shares, 2);
        assert!(second.len() > 100, "{}", second.len());
        drop(first);
        assert!(take_all(&mut shares, 1).len() < 18_000, "no longer alone");
    }

    #[test]
    fn what_is_published_is_not_given_out() {
        let mut shares = Shares::new(1000);
        shares.keep(900);
        assert!(take_all(&mut shares, 1).len() <= 100);
        shares.keep(1001);
        assert!(shares.ticket(PortId(2)).is_none());
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut shares = Shares::new(90);
        shares.attach(PortId(2));
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
