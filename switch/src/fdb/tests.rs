use std::collections::HashMap as Map;

use proptest::prelude::*;

use super::*;

fn mac(n: u32) -> MacAddr {
    let [a, b, c, d] = n.to_be_bytes();
    MacAddr([2, 0, a, b, c, d])
}

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1000)
}

const P: PortId = PortId(1);
const Q: PortId = PortId(2);

#[test]
fn learns_moves_and_ages() {
    let mut fdb = Fdb::default();
    assert_eq!(fdb.learn(at(0), 0, mac(1), P), Learn::New);
    assert_eq!(fdb.learn(at(100), 0, mac(1), P), Learn::Known);
    assert_eq!(
        fdb.lookup(at(400), 0, mac(1)),
        Some(P),
        "300 s after it was last seen"
    );
    assert_eq!(fdb.lookup(at(401), 0, mac(1)), None);
    assert_eq!(fdb.lookup(at(100), 7, mac(1)), None, "another VLAN");
    assert_eq!(fdb.learn(at(200), 0, mac(1), Q), Learn::Moved(P));
    assert_eq!((fdb.share(P), fdb.share(Q)), (0, 1));
    assert_eq!(
        fdb.learn(at(900), 0, mac(1), P),
        Learn::New,
        "too old to have moved"
    );
    assert_eq!(
        fdb.counters(),
        FdbCounters {
            learned: 2,
            moved: 1,
            aged: 1,
            evicted: 0,
            refused: 0
        }
    );
}

#[test]
fn a_port_has_a_share() {
    let mut fdb = Fdb::new(100, 10);
    for n in 0..1000 {
        fdb.learn(at(1), 0, mac(n), P);
    }
    assert_eq!((fdb.share(P), fdb.counters().refused), (10, 990));
    assert_eq!(
        fdb.learn(at(1), 0, mac(5000), Q),
        Learn::New,
        "the other port is not hurt"
    );
    assert_eq!(
        fdb.learn(at(1), 0, mac(5000), P),
        Learn::Full,
        "a move needs room too"
    );
    assert_eq!(fdb.lookup(at(1), 0, mac(5000)), Some(Q));
    // Age makes room again.
    assert_eq!(fdb.learn(at(400), 0, mac(6000), P), Learn::New);
}

#[test]
fn a_full_table_forgets_the_oldest() {
    let mut fdb = Fdb::new(4, 4);
    for n in 0..4 {
        fdb.learn(at(u64::from(n)), 0, mac(n), P);
    }
    fdb.learn(at(5), 0, mac(0), P);
    fdb.learn(at(6), 0, mac(9), Q);
    assert_eq!(fdb.lookup(at(6), 0, mac(1)), None);
    assert_eq!(fdb.lookup(at(6), 0, mac(0)), Some(P));
    assert_eq!(fdb.counters().evicted, 1);
}

#[test]
fn a_static_entry_stays() {
    let mut fdb = Fdb::default();
    fdb.learn(at(0), 0, mac(1), Q);
    fdb.set_static(0, mac(1), P);
    assert_eq!(fdb.share(Q), 0);
    assert_eq!(fdb.learn(at(1), 0, mac(1), Q), Learn::Taken(P));
    assert_eq!(fdb.learn(at(1), 0, mac(1), P), Learn::Known);
    assert_eq!(fdb.lookup(at(100_000), 0, mac(1)), Some(P));
    assert!(fdb.remove_static(0, mac(1)) && !fdb.remove_static(0, mac(1)));
    assert_eq!(fdb.lookup(at(1), 0, mac(1)), None);
}

#[test]
fn entries_are_listed_with_their_age() {
    let mut fdb = Fdb::default();
    fdb.set_static(0, mac(7), P);
    fdb.learn(at(0), 5, mac(1), Q);
    fdb.learn(at(0), 5, mac(2), Q);
    fdb.learn(at(290), 5, mac(2), Q);
    let listed: Vec<FdbEntry> = fdb.entries(at(301)).collect();
    assert_eq!(
        listed,
        [
            FdbEntry {
                port: P,
                vlan: 0,
                mac: mac(7),
                age: Duration::ZERO,
                origin: Origin::Static
            },
            FdbEntry {
                port: Q,
                vlan: 5,
                mac: mac(2),
                age: Duration::from_secs(11),
                origin: Origin::Learned
            },
        ]
    );
}

#[test]
fn a_port_that_goes_takes_its_entries_along() {
    let mut fdb = Fdb::default();
    fdb.learn(at(0), 0, mac(1), P);
    fdb.learn(at(0), 0, mac(2), Q);
    fdb.set_static(0, mac(3), P);
    fdb.remove_port(P);
    assert_eq!(fdb.entries(at(0)).map(|e| e.mac).collect::<Vec<_>>(), [mac(2)]);
    assert_eq!(fdb.share(P), 0);
}

#[test]
fn a_run_of_frames_ends_with_what_it_relied_on() {
    let mut fdb = Fdb::default();
    let run = |fdb: &mut Fdb| {
        for n in 0..3 {
            let learned = fdb.learn(at(1), 0, mac(1), P);
            assert!(n == 0 || learned == Learn::Known, "{learned:?}");
        }
    };
    run(&mut fdb);
    assert_eq!(fdb.learn(at(1), 0, mac(1), Q), Learn::Moved(P));
    assert_eq!(fdb.learn(at(1), 0, mac(1), P), Learn::Moved(Q));
    run(&mut fdb);
    fdb.remove_port(P);
    assert_eq!(fdb.learn(at(1), 0, mac(1), P), Learn::New);
    run(&mut fdb);
    fdb.set_static(0, mac(1), Q);
    assert_eq!(fdb.learn(at(1), 0, mac(1), P), Learn::Taken(Q));
}

proptest! {
    /// Against a plain map: where an address is known, the two agree; bounds and shares hold throughout.
    #[test]
    fn agrees_with_a_model(
        // Half of the frames come at the same moment as the one before, and often from the same address.
        steps in proptest::collection::vec(
            (prop_oneof![Just(0u64), 0u64..100], 0u16..3, prop_oneof![0u32..2, 0u32..40], 1u32..5),
            1..300,
        ),
    ) {
        let mut fdb = Fdb::new(24, 8);
        let mut model: Map<(u16, MacAddr), (PortId, Instant)> = Map::new();
        let mut now = Instant::ZERO;
        for (wait, vlan, n, port) in steps {
            now += Duration::from_secs(wait);
            let (address, port) = (mac(n), PortId(port));
            let before = fdb.lookup(now, vlan, address);
            match fdb.learn(now, vlan, address, port) {
                Learn::Known => prop_assert!(before == Some(port) || before.is_none()),
                Learn::Moved(from) => prop_assert!(before == Some(from) && from != port),
                Learn::New => prop_assert_eq!(before, None),
                Learn::Full => {
                    prop_assert!(fdb.share(port) == 8 && before != Some(port));
                    continue;
                }
                Learn::Taken(_) => prop_assert!(false, "nothing is static here"),
            }
            model.insert((vlan, address), (port, now));
            prop_assert_eq!(fdb.lookup(now, vlan, address), Some(port));
            prop_assert!(fdb.len() <= 24);
            let shares: u32 = (1..5).map(|p| fdb.share(PortId(p))).sum();
            prop_assert_eq!(shares as usize, fdb.len());
            for entry in fdb.entries(now) {
                let known = model.get(&(entry.vlan, entry.mac)).copied();
                prop_assert_eq!(known, Some((entry.port, Instant::from_micros(now.micros() - entry.age.as_micros() as u64))));
            }
        }
    }
}
