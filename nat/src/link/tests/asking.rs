//! Questions for those that packets wait for: how often they are asked, and how many they are.

use super::super::{Due, solicit, solicit_again};
use super::*;

/// A packet to `dst` waits, whom nobody knows.
fn wait_for(rig: &mut Rig, dst: IpAddr) {
    let kept = rig.neighbours.keep(rig.now, dst, &[0; 60], Offload::NONE);
    assert_eq!(kept, Some(0));
    solicit(&mut rig.cx(), dst);
}

/// Does what is due as the gateway does; how many packets were given up.
fn flush(rig: &mut Rig) -> usize {
    let mut given_up = 0;
    while let Some(due) = rig.neighbours.due(rig.now) {
        match due {
            Due::Ask(addr) => solicit_again(&mut rig.cx(), addr),
            Due::GiveUp(packets) => given_up += packets.len(),
        }
    }
    given_up
}

fn host(number: usize) -> IpAddr {
    addr(&format!("fd00:2::{number:x}"))
}

#[test]
fn a_scan_makes_no_storm_and_keeps_nobody_from_being_asked_for_again() {
    let mut rig = Rig::new();
    for number in 0x100..0x140 {
        wait_for(&mut rig, host(number));
    }
    assert_eq!(rig.sent().len(), 64);
    let mut next = 0x1000;
    let mut scan = |rig: &mut Rig| {
        for number in next..next + 1000 {
            solicit(&mut rig.cx(), host(number));
        }
        next += 1000;
        rig.sent().len()
    };
    assert_eq!(scan(&mut rig), 256 - 64);
    for second in 1..=3 {
        rig.now += Duration::from_secs(1);
        // The scan comes first and takes all that may be asked for; at a time between, nothing.
        assert_eq!(scan(&mut rig), 256);
        let given_up = flush(&mut rig);
        let again = rig.sent().len();
        assert_eq!((again, given_up), if second < 3 { (64, 0) } else { (0, 64) });
        assert_eq!(scan(&mut rig), 0);
    }
    assert_eq!(rig.neighbours.waiting_until(), None);
}

#[test]
fn no_address_is_asked_for_twice_in_a_second_whoever_wants_it() {
    let mut rig = Rig::new();
    let mut asked = Vec::new();
    for tenth in 0..100 {
        match tenth {
            // Somebody who does not wait, somebody who does, and the first again.
            0 | 10 => solicit(&mut rig.cx(), addr("10.0.2.9")),
            5 => wait_for(&mut rig, addr("10.0.2.9")),
            _ => {}
        }
        let given_up = flush(&mut rig);
        assert_eq!(given_up, usize::from(tenth == 35));
        asked.extend(rig.sent().iter().map(|_| tenth));
        rig.now += Duration::from_millis(100);
    }
    assert_eq!(asked, [0, 10, 25]);
}

#[test]
fn nobody_is_asked_for_what_is_off_the_link() {
    let mut rig = Rig::new();
    for dst in ["192.0.2.9", "2001:db8::9", "10.0.2.2"] {
        wait_for(&mut rig, addr(dst));
    }
    for _ in 0..3 {
        rig.now += Duration::from_secs(1);
        let given_up = flush(&mut rig);
        assert!(given_up == 0 || given_up == 3);
    }
    assert!(rig.sent().is_empty());
    assert_eq!(rig.neighbours.waiting(), (0, 0));
}
