//! What is measured. A case is one set-up with one or more rows.

mod dns;
mod flow;
mod offload;
mod switch;
mod tcp;
mod udp;

/// A set-up and what is measured in it.
pub(crate) struct Case {
    /// The part of a row's name before the slash.
    pub(crate) name: &'static str,
    /// Does the work, marking what counts.
    pub(crate) run: fn(),
}

const fn case(name: &'static str, run: fn()) -> Case {
    Case { name, run }
}

/// All of them, the longest first.
pub(crate) const ALL: &[Case] = &[
    case("flow-1m", flow::million),
    case("flow-1k", flow::thousand),
    case("decision", switch::decision),
    case("fdb", switch::fdb),
    case("forward", switch::forward),
    case("checksum", offload::checksum),
    case("segmentation", offload::segmentation),
    case("parse", offload::parse),
    case("tcp-out", tcp::out),
    case("tcp-in", tcp::into),
    case("tcp-connection", tcp::connection),
    case("udp-out", udp::out),
    case("udp-in", udp::into),
    case("dns", dns::local),
    case("harness", || {
        crate::meter::row("nothing", 100, |_| crate::meter::counted(&mut || {}));
    }),
];
