//! What is measured: the rows of the table.

/// One row of the table.
pub(crate) struct Row {
    /// Short and stable: for `--only` and for JSON.
    pub(crate) name: &'static str,
    /// For readers.
    pub(crate) title: &'static str,
    /// Of the figure.
    pub(crate) unit: &'static str,
    /// MTU of the container's interface.
    pub(crate) mtu: u32,
    pub(crate) work: Work,
    /// No more rounds than this, for what takes long or repeats by itself.
    pub(crate) rounds: usize,
}

/// What is done for a row. "Out" is from the container to the server, "in" the other way, on connections or flows that
/// the container opens; "published" is to a port of the container's that the host offers, from the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// iperf3 over TCP, Gbit/s as received.
    Bulk { way: Way, streams: u32 },
    /// iperf3 from one container to another on the same network.
    Neighbours,
    /// `lab-load tcp-rr`.
    TcpRr,
    /// `lab-load udp-rr`.
    UdpRr,
    /// `lab-load tcp-crr`.
    Crr { parallel: u32, way: Way },
    /// `lab-load tcp-crr` for a number of connections, 16 at a time: rate of the last three tenths over that of the first three.
    Steady,
    /// `lab-load udp-flood-*`, thousands of datagrams a second as received.
    Flood { size: u32, way: Way },
    /// `lab-load udp-gso`, Gbit/s as received; without offloads as the row to compare with.
    Quic { way: Way, offloads: bool },
    /// `lab-load idle` with [`IDLE`] connections: how many answer at the end.
    Idle,
    /// p50 in microseconds of `lab-load tcp-rr` beside [`IDLE_BESIDE`] idle connections; of a stack started afresh, and
    /// `lab-load tcp-rr` before there were any is what `ratio` compares with.
    RrWithIdle,
    /// Milliseconds from the start of `slirp4netns`, Pontoon's or its own, for a namespace that is there already until it
    /// writes to `--ready-fd`; median of 20 starts.
    Ready,
    /// Milliseconds from the start of `pontoon run -- CMD` and `pasta --config-net -- CMD`, both of which make the namespaces
    /// too, until CMD runs and sees a default route; median of 20 starts.
    ReadyRun,
    /// Megabytes resident in the largest of the stack's processes when it has nothing to do.
    Resident,
}

/// See [`Work`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Out,
    In,
    Published,
}

/// Idle connections of the row `idle`: as many as a limit of 20,000 descriptors allows client, server and stack.
pub(crate) const IDLE: u64 = 19_500;
/// Idle connections beside which request/response is measured.
pub(crate) const IDLE_BESIDE: u64 = 10_000;

/// Measured as often as the rounds say.
const ALWAYS: usize = usize::MAX;

use Way::{In, Out, Published};

/// All rows, in the order of the table.
pub(crate) const ROWS: &[Row] = &[
    bulk("tcp-out-1500", "TCP out, MTU 1500", 1500, Out, 1),
    bulk("tcp-in-1500", "TCP in, MTU 1500", 1500, In, 1),
    bulk(
        "tcp-published-1500",
        "TCP published, MTU 1500",
        1500,
        Published,
        1,
    ),
    bulk("tcp-out-65520", "TCP out, MTU 65520", 65_520, Out, 1),
    bulk("tcp-in-65520", "TCP in, MTU 65520", 65_520, In, 1),
    bulk("tcp-out-1500-x8", "TCP out, 8 streams", 1500, Out, 8),
    bulk("tcp-in-1500-x8", "TCP in, 8 streams", 1500, In, 8),
    row(
        "c2c-1500",
        "container to container, MTU 1500",
        "Gbit/s",
        Work::Neighbours,
    ),
    row("tcp-rr", "TCP request/response", "/s", Work::TcpRr),
    row("udp-rr", "UDP request/response", "/s", Work::UdpRr),
    crr("crr-1", "connect+request+close, 1 at a time", 1, Out),
    crr("crr-16", "connect+request+close, 16 at a time", 16, Out),
    crr(
        "crr-published-1",
        "connect+… published, 1 at a time",
        1,
        Published,
    ),
    crr(
        "crr-published-16",
        "connect+… published, 16 at a time",
        16,
        Published,
    ),
    Row {
        rounds: 1,
        ..row(
            "crr-steady",
            "last over first 3/10 of 100,000 such",
            "ratio",
            Work::Steady,
        )
    },
    flood("udp-64-out", "UDP flood out, 64 B", 64, Out),
    flood("udp-64-in", "UDP flood in, 64 B", 64, In),
    flood("udp-1400-out", "UDP flood out, 1400 B", 1400, Out),
    flood("udp-1400-in", "UDP flood in, 1400 B", 1400, In),
    quic("udp-gso-out", "UDP out with GSO, 1400 B", Out, true),
    quic("udp-gso-in", "UDP in with GSO, 1400 B", In, true),
    quic("udp-plain-out", "UDP out, 1400 B, no offloads", Out, false),
    quic("udp-plain-in", "UDP in, 1400 B, no offloads", In, false),
    Row {
        rounds: 1,
        ..row("idle", "idle connections alive, of 19,500", "", Work::Idle)
    },
    Row {
        rounds: 3,
        ..row(
            "rr-with-idle",
            "request/response p50, 10,000 idle",
            "µs",
            Work::RrWithIdle,
        )
    },
    Row {
        rounds: 1,
        ..row("ready-ms", "ready after start", "ms", Work::Ready)
    },
    Row {
        rounds: 1,
        ..row(
            "ready-run-ms",
            "a command runs, in namespaces made for it",
            "ms",
            Work::ReadyRun,
        )
    },
    Row {
        rounds: 1,
        ..row("resident", "idle process, resident", "MB", Work::Resident)
    },
];

const fn row(name: &'static str, title: &'static str, unit: &'static str, work: Work) -> Row {
    Row {
        name,
        title,
        unit,
        mtu: 1500,
        work,
        rounds: ALWAYS,
    }
}

const fn bulk(name: &'static str, title: &'static str, mtu: u32, way: Way, streams: u32) -> Row {
    Row {
        mtu,
        ..row(name, title, "Gbit/s", Work::Bulk { way, streams })
    }
}

const fn crr(name: &'static str, title: &'static str, parallel: u32, way: Way) -> Row {
    row(name, title, "/s", Work::Crr { parallel, way })
}

const fn flood(name: &'static str, title: &'static str, size: u32, way: Way) -> Row {
    row(name, title, "kpps", Work::Flood { size, way })
}

const fn quic(name: &'static str, title: &'static str, way: Way, offloads: bool) -> Row {
    row(name, title, "Gbit/s", Work::Quic { way, offloads })
}

impl Row {
    /// True for figures of which more is better.
    pub(crate) fn more_is_better(&self) -> bool {
        !matches!(
            self.work,
            Work::RrWithIdle | Work::Ready | Work::ReadyRun | Work::Resident
        )
    }

    /// What the CPU time of the stack is divided by: seconds for each GB, or microseconds for each transaction or datagram.
    pub(crate) fn cpu_unit(&self) -> &'static str {
        match self.work {
            Work::Bulk { .. } | Work::Neighbours | Work::Quic { .. } => "s/GB",
            Work::TcpRr | Work::UdpRr | Work::Crr { .. } | Work::Steady | Work::Flood { .. } => "µs each",
            Work::Idle | Work::RrWithIdle | Work::Ready | Work::ReadyRun | Work::Resident => "",
        }
    }

    /// True if the stack is started for this row alone, as what it has done before would show.
    pub(crate) fn afresh(&self) -> bool {
        matches!(
            self.work,
            Work::Idle | Work::RrWithIdle | Work::Ready | Work::ReadyRun | Work::Resident
        )
    }
}
