//! Random switches with VLANs, isolated ports and links, against a model that says the same in another way: from wire to wire, with
//! the bytes that come out.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::{GATEWAY, mac};
use crate::frame::{Frame, HEADROOM, Offload};
use crate::mac::MacAddr;
use crate::network::{Network, PortConfig};
use crate::policy::{MacPolicy, Policy};
use crate::port::PortId;
use crate::port::pair::{PairPort, Wire, pair};
use crate::station::{Out, Ready, Station};
use crate::switch::StationPlace;
use crate::time::Instant;
use crate::{Peers, Service, Transport, VlanId, VlanMode};

const HTTP: Service = Service {
    transport: Transport::Tcp,
    port: 80,
};

/// A port's VLANs: those it carries, each with a tag or without.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Mode {
    All,
    Some(Vec<(u16, Tag)>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tag {
    With,
    Without,
}

impl Mode {
    fn policy(&self, trunk: bool) -> VlanMode {
        let id = |n: u16| VlanId::new(n).expect("a VLAN");
        match self {
            Self::All => VlanMode::Transparent,
            Self::Some(vlans) if vlans.first().is_some_and(|v| v.0 == 0) => VlanMode::Untagged,
            Self::Some(vlans) if !trunk => VlanMode::Access(id(vlans[0].0)),
            Self::Some(vlans) => {
                let of = |tag| {
                    let those = vlans.iter().filter(move |v| v.1 == tag);
                    those.map(|v| id(v.0))
                };
                VlanMode::Trunk {
                    native: of(Tag::Without).next(),
                    allowed: of(Tag::With).collect(),
                }
            }
        }
    }

    fn carries(&self, vlan: u16) -> Option<Tag> {
        match self {
            Self::All => Some(if vlan == 0 { Tag::Without } else { Tag::With }),
            Self::Some(vlans) => vlans.iter().find(|v| v.0 == vlan).map(|v| v.1),
        }
    }

    fn untagged(&self) -> Option<u16> {
        match self {
            Self::All => Some(0),
            Self::Some(vlans) => vlans.iter().find(|v| v.1 == Tag::Without).map(|v| v.0),
        }
    }
}

#[derive(Clone, Debug)]
struct Spec {
    mode: Mode,
    trunk: bool,
    bound: bool,
    linked: bool,
}

fn spec() -> impl Strategy<Value = Spec> {
    let access = (0u16..4).prop_map(|v| (Mode::Some(vec![(v, Tag::Without)]), false));
    let trunk = (proptest::option::of(1u16..4), 0u8..8).prop_map(|(native, allowed)| {
        let mut vlans: Vec<_> = native.map(|v| (v, Tag::Without)).into_iter().collect();
        let tagged = (1..4).filter(|&v| allowed >> v & 1 != 0 && native != Some(v));
        vlans.extend(tagged.map(|v| (v, Tag::With)));
        (Mode::Some(vlans), true)
    });
    let mode = prop_oneof![Just((Mode::All, false)), access, trunk];
    (mode, any::<bool>(), proptest::bool::weighted(0.3)).prop_map(|((mode, trunk), bound, linked)| Spec {
        mode,
        trunk,
        bound,
        linked,
    })
}

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Load {
    Arp,
    Solicitation,
    ToHttp,
    FromHttp,
    CallFromHttp,
    Error,
    Echo,
    Other,
}

const LOADS: [Load; 8] = [
    Load::Arp,
    Load::Solicitation,
    Load::ToHttp,
    Load::FromHttp,
    Load::CallFromHttp,
    Load::Error,
    Load::Echo,
    Load::Other,
];

impl Load {
    fn bytes(self, src: MacAddr) -> Vec<u8> {
        let ip = |protocol: u8, payload: &[u8]| {
            let mut b = vec![8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
            b.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            b.extend_from_slice(payload);
            b
        };
        let tcp = |from: u16, to: u16, flags: u8| {
            let mut b = [from.to_be_bytes(), to.to_be_bytes()].concat();
            b.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
            ip(6, &b)
        };
        match self {
            Self::Arp => [
                &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1][..],
                &src.0,
                &[10, 0, 0, 1],
                &[0; 10],
            ]
            .concat(),
            Self::Solicitation => {
                let mut b = vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 58, 255];
                b.extend_from_slice(&[0xfd; 32]);
                b.extend_from_slice(&[135, 0, 0, 0, 0, 0, 0, 0]);
                b
            }
            Self::ToHttp => tcp(4000, 80, 2),
            Self::FromHttp => tcp(80, 4000, 0x12),
            Self::CallFromHttp => tcp(80, 4000, 2),
            Self::Error => ip(1, &[3, 1, 0, 0]),
            Self::Echo => ip(1, &[8, 0, 0, 0]),
            Self::Other => vec![0x88, 0xb5, 1, 2, 3, 4],
        }
    }
}

/// A frame: source and destination by number, tags, and what it carries.
#[derive(Clone, Debug)]
struct Sent {
    from: usize,
    src: usize,
    dst: usize,
    tag: Option<u16>,
    inner: bool,
    load: Load,
}

fn sent() -> impl Strategy<Value = Sent> {
    let tag = prop_oneof![
        3 => Just(None),
        1 => Just(Some(0xe000)),
        3 => (1u16..5).prop_map(Some),
        1 => (1u16..5).prop_map(|v| Some(0xa000 | v)),
    ];
    let inner = proptest::bool::weighted(0.1);
    let src = prop_oneof![4 => Just(usize::MAX), 1 => 0usize..6];
    (0usize..6, src, 0usize..9, tag, inner, select(&LOADS[..])).prop_map(
        |(from, src, dst, tag, inner, load)| Sent {
            from,
            src: if src == usize::MAX { from } else { src },
            dst,
            tag,
            inner: inner && tag.is_some(),
            load,
        },
    )
}

fn address(n: usize) -> MacAddr {
    match n {
        6 => GATEWAY,
        7 => MacAddr::BROADCAST,
        8 => MacAddr([0x33, 0x33, 0xff, 0, 0, 1]),
        n => mac(n as u8),
    }
}

impl Sent {
    /// The frame with this outer tag.
    fn bytes(&self, src: MacAddr, tag: Option<u16>) -> Vec<u8> {
        let mut b = [address(self.dst).0, src.0].concat();
        if let Some(tci) = tag {
            b.extend_from_slice(&[0x81, 0]);
            b.extend_from_slice(&tci.to_be_bytes());
        }
        if self.inner {
            b.extend_from_slice(&[0x81, 0, 0, 2]);
        }
        b.extend(self.load.bytes(src));
        b
    }
}

/// Keeps what it is given.
#[derive(Default)]
struct Keeper(Vec<Vec<u8>>);

impl Station for Keeper {
    fn mac(&self) -> MacAddr {
        GATEWAY
    }
    fn frame(&mut self, _: Instant, _: PortId, frame: &mut Frame<'_>, _: &mut dyn Out) {
        self.0.push(frame.bytes().to_vec());
    }
    fn ready(&mut self, _: Instant, _: usize, _: Ready, _: &mut dyn Out) {}
    fn flush(&mut self, _: Instant, _: &mut dyn Out) {}
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// What comes of a frame.
#[derive(Default)]
struct Delivered {
    /// The ports that get it, and its bytes there.
    ports: Vec<(usize, Vec<u8>)>,
    /// What the station gets.
    station: Option<Vec<u8>>,
}

/// The model: every port asked in turn.
struct Model {
    specs: Vec<Spec>,
    links: HashMap<(usize, usize), bool>,
    station: Option<u16>,
    learned: HashMap<(u16, MacAddr), usize>,
}

impl Model {
    fn owner(&self, vlan: u16, mac: MacAddr) -> Option<usize> {
        (0..self.specs.len()).find(|&n| {
            let spec = &self.specs[n];
            // On all VLANs an address is bound on the untagged one only.
            let there = match spec.mode {
                Mode::All => vlan == 0,
                Mode::Some(_) => spec.mode.carries(vlan).is_some(),
            };
            spec.bound && there && mac == super::mac(n as u8)
        })
    }

    fn link_allows(&self, from: usize, to: usize, load: Load, group: bool) -> bool {
        if !self.specs[from].linked && !self.specs[to].linked {
            return true;
        }
        let (there, back) = (self.links.get(&(from, to)), self.links.get(&(to, from)));
        let http = |link: Option<&bool>| link == Some(&true);
        match load {
            Load::Arp | Load::Solicitation => there.is_some() || back.is_some(),
            Load::ToHttp => !group && http(there),
            Load::FromHttp => !group && http(back),
            Load::Error => !group && (http(there) || http(back)),
            Load::CallFromHttp | Load::Echo | Load::Other => false,
        }
    }

    fn deliver(&mut self, frame: &Sent) -> Delivered {
        let station = frame.from >= self.specs.len();
        let src = if station { GATEWAY } else { address(frame.src) };
        let (dst, id) = (address(frame.dst), frame.tag.map_or(0, |tci| tci & 0xfff));
        let vlan = if station {
            self.station
        } else {
            let mode = &self.specs[frame.from].mode;
            let peeled = mode
                .untagged()
                .filter(|&v| *mode != Mode::All && (id == 0 || id == v));
            match peeled {
                // What would come out of its tag here must not be another one. (A trunk may hold it in its own native tag.)
                Some(_) if frame.inner && (id == 0 || !self.specs[frame.from].trunk) => None,
                Some(v) => Some(v),
                None if id == 0 => mode.untagged(),
                None => mode.carries(id).map(|_| id),
            }
        };
        let Some(vlan) = vlan else {
            return Delivered::default();
        };
        if !station {
            if self.specs[frame.from].bound && src != mac(frame.from as u8)
                || src == GATEWAY && self.station.is_some()
            {
                return Delivered::default();
            }
            match self.owner(vlan, src) {
                Some(owner) if owner != frame.from => return Delivered::default(),
                Some(_) => {}
                None => drop(self.learned.insert((vlan, src), frame.from)),
            }
        }
        let group = dst.is_group();
        let to_station = !station && self.station == Some(vlan) && (group || dst == GATEWAY);
        let known = self.owner(vlan, dst).or(self.learned.get(&(vlan, dst)).copied());
        let mut ports = Vec::new();
        for (n, spec) in self.specs.iter().enumerate() {
            let theirs = match known {
                _ if group => true,
                _ if dst == GATEWAY && self.station.is_some() => false,
                Some(owner) => owner == n,
                None => !spec.bound || dst == mac(n as u8),
            };
            let let_through = station || self.link_allows(frame.from, n, frame.load, group);
            let Some(tag) = spec.mode.carries(vlan).filter(|_| theirs && let_through) else {
                continue;
            };
            let tag = match tag {
                _ if vlan == 0 => frame.tag,
                Tag::With => Some(frame.tag.unwrap_or(0) & 0xf000 | vlan),
                Tag::Without => None,
            };
            let bared = frame.inner && tag.is_none();
            if n != frame.from && !bared {
                ports.push((n, frame.bytes(src, tag)));
            }
        }
        Delivered {
            ports,
            station: (to_station && !frame.inner).then(|| frame.bytes(src, None)),
        }
    }
}

fn build(
    specs: &[Spec],
    links: &[(usize, usize, bool)],
    place: StationPlace,
) -> (Network<Keeper>, Vec<PortId>, Vec<PairPort>) {
    let mut network = Network::new(Keeper::default());
    network.place_station(place).expect("free");
    let (mut ids, mut ends) = (Vec::new(), Vec::new());
    for (n, spec) in specs.iter().enumerate() {
        let (port, end) = pair(Wire::default());
        let policy = Policy {
            mac: if spec.bound {
                MacPolicy::Only(mac(n as u8))
            } else {
                MacPolicy::Any
            },
            vlan: spec.mode.policy(spec.trunk),
            peers: if spec.linked { Peers::Linked } else { Peers::All },
            ..Policy::default()
        };
        let config = PortConfig {
            name: n.to_string(),
            policy,
        };
        ids.push(
            network
                .add_port(Instant::ZERO, Box::new(port), config)
                .expect("room"),
        );
        ends.push(end);
    }
    for &(client, server, http) in links {
        let services = if http { &[HTTP][..] } else { &[] };
        assert!(network.set_link(ids[client], ids[server], services));
    }
    (network, ids, ends)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_network_does_what_the_model_says(
        specs in proptest::collection::vec(spec(), 2..6),
        links in proptest::collection::vec((0usize..6, 0usize..6, any::<bool>()), 0..4),
        place in prop_oneof![
            2 => Just(StationPlace::Untagged),
            2 => (1u16..4).prop_map(|v| StationPlace::Vlan(VlanId::new(v).expect("a VLAN"))),
            1 => Just(StationPlace::Absent),
        ],
        frames in proptest::collection::vec(sent(), 1..60),
    ) {
        let links: Vec<_> = links
            .into_iter()
            .map(|(a, b, http)| (a % specs.len(), b % specs.len(), http))
            .filter(|(a, b, _)| a != b)
            .collect();
        let (mut network, _, ends) = build(&specs, &links, place);
        let mut model = Model {
            specs,
            links: links.iter().map(|&(a, b, http)| ((a, b), http)).collect(),
            station: match place {
                StationPlace::Untagged => Some(0),
                StationPlace::Vlan(id) => Some(id.get()),
                StationPlace::Absent => None,
            },
            learned: HashMap::new(),
        };
        for (nth, mut frame) in frames.into_iter().enumerate() {
            if let Some(end) = ends.get(frame.from) {
                end.push_bytes(&frame.bytes(address(frame.src), frame.tag));
                network.poll_all(Instant::ZERO);
            } else {
                // The station's frames have no tags, and now and then no room for one.
                (frame.tag, frame.inner) = (None, false);
                let bytes = frame.bytes(GATEWAY, None);
                let room = if nth % 2 == 0 { HEADROOM } else { 0 };
                let mut buf = [vec![0; room], bytes].concat();
                let end = buf.len();
                network.with_station(Instant::ZERO, |_, out| {
                    out.send(&mut Frame::new(&mut buf, room, end, Offload::NONE));
                });
            }
            let expected = model.deliver(&frame);
            let mut got = Vec::new();
            for (n, end) in ends.iter().enumerate() {
                got.extend(std::iter::from_fn(|| end.pop()).map(|packet| (n, packet.bytes)));
            }
            prop_assert_eq!(got, expected.ports, "{:?} of {:?}", frame, model.specs);
            let station = std::mem::take(&mut network.station_mut().0);
            prop_assert_eq!(station, Vec::from_iter(expected.station), "{:?} at the station", frame);
        }
    }
}
