//! The conntrack table.

use std::hint::black_box;

use pontoon_benches::table::{flow, full, step, tuple};
use pontoon_nat::flow::{Direction, FlowId};
use pontoon_switch::Instant;

use crate::meter::{counted, row};

const ROUNDS: u32 = 1000;

pub(crate) fn thousand() {
    of(1000);
}

pub(crate) fn million() {
    of(1_000_000);
}

fn of(n: u32) {
    let now = Instant::from_millis(1);
    let mut table = full(now, n);
    row("hit", ROUNDS, |i| {
        let tuple = tuple(step(i, n));
        let mut found = None;
        counted(&mut || found = table.lookup(black_box(&tuple)));
        assert!(matches!(found, Some((_, Direction::Original))));
    });
    row("hit-reply", ROUNDS, |i| {
        let tuple = tuple(step(i, n)).reversed();
        let mut found = None;
        counted(&mut || found = table.lookup(black_box(&tuple)));
        assert!(matches!(found, Some((_, Direction::Reply))));
    });
    row("miss", ROUNDS, |i| {
        let tuple = tuple(n + i);
        let mut found = None;
        counted(&mut || found = table.lookup(black_box(&tuple)));
        assert_eq!(found, None);
    });
    row("count-and-touch", ROUNDS, |i| {
        let (id, _) = table.lookup(&tuple(step(i, n))).expect("it is there");
        let later = Instant::from_millis(2001);
        counted(&mut || table.count(later, id, Direction::Original, 1, 1500));
    });
    row("insert", ROUNDS, |i| {
        let new = flow(n + i);
        let mut id: Option<FlowId> = None;
        counted(&mut || id = table.insert(now, black_box(new)).ok());
        table.remove(id.expect("room")).expect("it is there");
    });
    row("remove", ROUNDS, |i| {
        let id = table.insert(now, flow(n + i)).expect("room");
        counted(&mut || {
            black_box(table.remove(id));
        });
        assert!(table.get(id).is_none());
    });
}
