//! A gateway between one container and the host of [`crate::host`].

use std::net::Ipv4Addr;
use std::rc::Rc;

use pontoon_fixtures::packet::{Between, Tcp, flags};
use pontoon_nat::config::{Config, Egress, Filtering, HostLoopback, LinkLocal, Subnet4};
use pontoon_nat::{Endpoint, Gateway, Secrets};
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Offload, Out, PortId, Ready, Station};

use crate::frames::{Sample, TRANSPORT, tcp};
use crate::host::{Host, SERVER, Wire};

/// The container's port on the switch.
pub const PORT: PortId = PortId(1);
/// Its Ethernet address.
pub const CONTAINER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x64]);
/// The gateway's.
pub const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
/// The container's port for TCP and UDP, within the host's ephemeral ones.
pub const SOURCE: u16 = 40_000;

/// Takes what the gateway sends, and keeps of the last frame as much as holds its headers.
#[derive(Debug)]
pub struct Sink {
    /// Frames taken.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The start of the last one.
    pub last: [u8; 64],
    /// The last reason for which a frame was dropped.
    pub dropped: Option<DropReason>,
}

impl Out for Sink {
    fn send_by(&mut self, _uplink: PortId, frame: &mut Frame<'_>) {
        self.send(frame);
    }

    fn send(&mut self, frame: &mut Frame<'_>) {
        self.frames += 1;
        self.bytes += frame.len() as u64;
        if let Some(head) = frame.bytes().first_chunk::<TCP_HEADERS>() {
            self.last[..TCP_HEADERS].copy_from_slice(head);
        }
    }

    fn drop(&mut self, _: Option<PortId>, reason: DropReason) {
        self.dropped = Some(reason);
    }
}

const TCP_HEADERS: usize = TRANSPORT + 20;

/// The gateway and what is around it.
pub struct Rig {
    /// The present moment, always the same.
    pub now: Instant,
    /// The gateway.
    pub gateway: Gateway<Host>,
    /// The far side of its sockets.
    pub wire: Rc<Wire>,
    /// What it sent.
    pub out: Sink,
}

impl std::fmt::Debug for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rig")
            .field("out", &self.out)
            .finish_non_exhaustive()
    }
}

impl Default for Rig {
    fn default() -> Self {
        let config = Config {
            mac: GATEWAY,
            subnet4: Some(Subnet4::new(
                "10.0.2.0/24".parse().expect("a network"),
                Ipv4Addr::new(10, 0, 2, 2),
            )),
            subnet6: None,
            mtu: 1500,
            resolvers: Vec::new(),
            search: Vec::new(),
            hosts: Vec::new(),
            egress: Egress::Host,
            host_loopback: HostLoopback::Unreachable,
            link_local: LinkLocal::Refused,
            filtering: Filtering::AddressDependent,
            max_flows: 1000,
            max_flows_per_container: 1000,
        };
        let host = Host::default();
        let wire = host.wire();
        let secrets = Secrets {
            index: (1, 2),
            sequence: (3, 4),
        };
        let mut gateway = Gateway::new(config, host, secrets);
        gateway.attach(Endpoint {
            port: PORT,
            name: "one".to_owned(),
            names: vec!["one".to_owned()],
            mac: CONTAINER,
            addresses: vec![Ipv4Addr::new(10, 0, 2, 100).into()],
        });
        Self {
            now: Instant::from_millis(1000),
            gateway,
            wire,
            out: Sink {
                frames: 0,
                bytes: 0,
                last: [0; 64],
                dropped: None,
            },
        }
    }
}

/// The container and someone by an address.
pub fn to(address: &str) -> Between {
    Between::v4("10.0.2.100", address).macs(CONTAINER, GATEWAY)
}

/// The container and the server.
pub fn to_server() -> Between {
    to(&SERVER.ip().to_string())
}

/// A TCP segment of the container's to the server, with a partial checksum, ready for [`number`].
pub fn segment(payload: usize) -> Sample {
    tcp(&to_server(), (SOURCE, SERVER.port()), payload)
}

/// A SYN of the container's, as Linux sends it.
pub fn syn() -> Sample {
    let bytes = to_server().tcp(Tcp {
        src: SOURCE,
        dst: SERVER.port(),
        seq: FIRST_SEQ.wrapping_sub(1),
        flags: flags::SYN,
        window: 64_240,
        // MSS 1460, SACK permitted, no time stamps, window scale 7.
        options: &[2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7],
        ..Tcp::default()
    });
    Sample {
        bytes,
        offload: Offload::NONE,
    }
}

/// The number of the container's first byte.
pub const FIRST_SEQ: u32 = 1000;

/// Puts sequence and acknowledgement numbers and flags into a segment; a partial checksum does not mind.
pub fn number(bytes: &mut [u8], seq: u32, ack: u32, flags: u8) {
    bytes[TRANSPORT + 4..TRANSPORT + 8].copy_from_slice(&seq.to_be_bytes());
    bytes[TRANSPORT + 8..TRANSPORT + 12].copy_from_slice(&ack.to_be_bytes());
    bytes[TRANSPORT + 13] = flags;
}

impl Rig {
    /// The container sends `sample`.
    pub fn frame(&mut self, sample: &mut Sample) {
        let mut frame = Frame::whole(&mut sample.bytes, sample.offload);
        self.gateway.frame(self.now, PORT, &mut frame, &mut self.out);
    }

    /// The last socket opened has something to read.
    pub fn ready(&mut self) {
        let token = self.wire.token.borrow().expect("a socket");
        let ready = Ready {
            readable: true,
            ..Ready::default()
        };
        self.gateway.ready(self.now, token.encode(), ready, &mut self.out);
    }

    /// A batch ends.
    pub fn flush(&mut self) {
        self.gateway.flush(self.now, &mut self.out);
    }

    /// The number that the container has to acknowledge of the last frame, given how many bytes of data it had.
    pub fn next_expected(&self, len: u32) -> u32 {
        let at = TRANSPORT + 4;
        let seq = self.out.last[at..]
            .first_chunk::<4>()
            .map_or(0, |b| u32::from_be_bytes(*b));
        let control = self.out.last[TRANSPORT + 13] & (flags::SYN | flags::FIN);
        seq.wrapping_add(len + u32::from(control != 0))
    }

    /// Opens a connection to the server; the number that the container has to acknowledge.
    pub fn connect(&mut self) -> u32 {
        self.frame(&mut syn());
        assert_eq!(self.out.last[TRANSPORT + 13], flags::SYN | flags::ACK);
        let ack = self.next_expected(0);
        let mut sample = segment(0);
        number(&mut sample.bytes, FIRST_SEQ, ack, flags::ACK);
        self.frame(&mut sample);
        assert_eq!(self.out.dropped, None);
        ack
    }

    /// Panics if a frame was dropped, and returns how many came out since the last call.
    pub fn sent(&mut self) -> u64 {
        assert_eq!(self.out.dropped, None);
        std::mem::take(&mut self.out.frames)
    }
}
