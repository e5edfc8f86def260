"""Packets that no kernel sends, through a router, as both ends see them.

    odd.py PID NAMESPACE CONVERSATION

has the container's end in the network namespace of process PID and the world's in /run/netns/NAMESPACE, and prints
what came of each packet, a line for each. Both ends are packet sockets of this one process, so that it knows what was
sent; after each packet a marker follows that is known to pass, and what comes before it is what came of the packet.
"""

import ctypes
import socket
import subprocess
import sys
import time

from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR, fragment, in4_chksum
from scapy.layers.inet6 import (
    ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop,
    PadN, in6_chksum,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import checksum

INSIDE, SERVER, OUTSIDE = "10.44.0.2", "198.51.100.10", "100.64.7.77"
INSIDE6, SERVER6, OUTSIDE6 = "fd44::2", "2001:db8:2::10", "2001:db8:7::77"
# Somebody on the way, who says what went wrong.
ROUTER, ROUTER6 = "203.0.113.99", "2001:db8:3::99"
# The port of what is known to pass.
MARK = 7


class End:
    """A packet socket on an interface of a namespace, and the way to the other end."""

    def __init__(self, namespace, interface, router, *ping):
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/self/ns/net") as own, open(namespace) as there:
            assert libc.setns(there.fileno(), 0x40000000) == 0, ctypes.get_errno()
            # Everybody on the way knows its neighbours, so that nothing waits and is overtaken; and this kernel the router's.
            for address in ping:
                subprocess.run(["ping", "-n", "-c1", "-W9", address], stdout=subprocess.DEVNULL, check=True)
            known = subprocess.run(["ip", "neigh", "show", router], capture_output=True, text=True, check=True).stdout
            self.router = known.split("lladdr ")[1].split()[0]
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.socket.bind((interface, 3))
            self.mac = ":".join("%02x" % b for b in self.socket.getsockname()[4])
            # Nothing that this kernel would say to packets for which it has no socket.
            quiet = "table inet odd { chain o { type filter hook output priority 0; tcp flags & (rst|ack|syn) != 0 drop; icmp type destination-unreachable drop; icmpv6 type 1 drop; icmpv6 type 4 drop; } }"
            quiet = quiet.replace("{", "{\n").replace(";", "\n").replace("}", "\n}")
            subprocess.run(["nft", "-f", "-"], input=quiet, text=True, check=True)
            assert libc.setns(own.fileno(), 0x40000000) == 0, ctypes.get_errno()

    def send(self, packet):
        self.socket.send(raw(Ether(src=self.mac, dst=self.router) / packet))

    def receive(self, until):
        """The next IP packet that this end did not send itself, or nothing."""
        while True:
            left = until - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                data, (_, _, kind, *_) = self.socket.recvfrom(70000)
            except TimeoutError:
                return None
            if kind == socket.PACKET_OUTGOING:
                continue
            frame = Ether(data)
            if frame.type == 0x0800 and frame.payload.proto != 2:
                return frame.payload
            if frame.type == 0x86DD and not about_neighbours(frame.payload):
                return frame.payload


def about_neighbours(packet):
    """Discovery of neighbours, routers and listeners, which is the link's own."""
    data = raw(packet)
    return data[6] == 58 and data[40] in range(130, 138) or data[6] == 0 and data[48] == 143


def checksums(packet):
    """Which checksums of a packet are wrong."""
    wrong = []
    data = bytearray(raw(packet))
    if packet.version == 4:
        head = (data[0] & 15) * 4
        if checksum(bytes(data[:head])) != 0:
            wrong.append("header")
        if packet.frag or packet.flags.MF:
            return wrong
        upper, body, proto = packet, bytes(data[head:packet.len]), packet.proto
        total = in4_chksum(proto, packet, body)
    else:
        if packet.nh not in (6, 17, 58):
            return wrong
        body, proto = bytes(data[40:40 + packet.plen]), packet.nh
        total = in6_chksum(proto, packet, body)
    if proto == 17 and body[6:8] == b"\0\0":
        wrong.append("none of UDP")
    elif proto in (6, 17, 58) and total not in (0, 0xffff):
        wrong.append("transport")
    elif proto == 1 and checksum(body) != 0:
        wrong.append("transport")
    return wrong


def ports(packet):
    for kind in (TCP, UDP):
        if kind in packet:
            return f":{packet[kind].sport}", f":{packet[kind].dport}"
    return "", ""


def shown(packet):
    """One line of all that matters of a packet."""
    source, target = ports(packet)
    said = [f"{packet.src}{source} > {packet.dst}{target}"]
    if packet.version == 4:
        said.append(f"ttl {packet.ttl}")
        if packet.options:
            said.append("options " + " ".join(type(o).__name__.replace("IPOption_", "") for o in packet.options))
        if packet.frag or packet.flags.MF:
            said.append(f"fragment {packet.frag * 8}{'+' if packet.flags.MF else ''} of {packet.len - packet.ihl * 4}")
        if packet.flags.evil:
            said.append("reserved flag")
        if packet.proto not in (1, 6, 17):
            said.append(f"protocol {packet.proto}")
    else:
        said.append(f"hlim {packet.hlim}")
        layer = packet.payload
        while type(layer).__name__.startswith("IPv6ExtHdr"):
            name = type(layer).__name__.replace("IPv6ExtHdr", "")
            said.append(f"fragment {layer.offset * 8}{'+' if layer.m else ''}" if name == "Fragment" else name)
            layer = layer.payload
        if packet.nh not in (0, 6, 17, 43, 44, 58, 60):
            said.append(f"protocol {packet.nh}")
    if TCP in packet and not (packet.version == 4 and packet.frag):
        tcp = packet[TCP]
        said.append(f"TCP {str(tcp.flags) or 'none'} seq {tcp.seq} ack {tcp.ack}" + (f" urgent {tcp.urgptr}" if tcp.urgptr else ""))
        if tcp.options:
            said.append(" ".join(f"{name}={value}" for name, value in tcp.options))
    if packet.version == 4 and ICMP in packet and not packet.frag:
        icmp = packet[ICMP]
        said.append(f"ICMP {icmp.type}/{icmp.code}" + (f" mtu {icmp.nexthopmtu}" if icmp.type == 3 and icmp.code == 4 else ""))
        said.append(about(raw(icmp)[8:], IP) if icmp.type in (3, 4, 5, 11, 12) else f"id {icmp.id} seq {icmp.seq}")
    elif packet.version == 6 and packet.nh == 58:
        data = raw(packet)[40:]
        said.append(f"ICMPv6 {data[0]}/{data[1]}" + (f" mtu {int.from_bytes(data[4:8], 'big')}" if data[0] == 2 else ""))
        said.append(about(data[8:], IPv6) if data[0] < 128 else f"id {int.from_bytes(data[4:6], 'big')} seq {int.from_bytes(data[6:8], 'big')}")
    wrong = checksums(packet)
    if wrong:
        said.append("wrong checksums: " + ", ".join(wrong))
    return ", ".join(said)


def about(data, kind):
    """The packet within an error."""
    inner = kind(data)
    source, target = ports(inner)
    fine = "" if kind is IPv6 or checksum(data[: (data[0] & 15) * 4]) == 0 else ", its header's checksum wrong"
    return f"about {inner.src}{source} > {inner.dst}{target}{fine}"


class Conversation:
    def __init__(self, pid, namespace):
        self.inside = End(f"/proc/{pid}/ns/net", "eth0", "10.44.0.1", SERVER, SERVER6)
        self.outside = End(f"/run/netns/{namespace}", "s0", "198.51.100.254", "198.51.100.254", "2001:db8:2::fe")
        # A flow that is known, for markers in both directions.
        self.markers = 0
        self.inside.send(self.marker(0, INSIDE, SERVER))
        first = self.outside.receive(time.monotonic() + 5)
        assert first is not None and first.dport == MARK, "the first marker passes"
        self.outside_of_markers = first.src, first.sport
        self.inside.receive(time.monotonic() + 0.1)

    def marker(self, n, source, target, sport=MARK, dport=MARK):
        return IP(src=source, dst=target) / UDP(sport=sport, dport=dport) / Raw(b"mark %d" % n)

    def out(self, what, *packets, tell=None):
        self.tell(what, self.inside, self.outside, packets, lambda n: self.marker(n, INSIDE, SERVER), tell)

    def back(self, what, *packets, tell=None):
        address, port = self.outside_of_markers
        self.tell(what, self.outside, self.inside, packets, lambda n: self.marker(n, SERVER, address, dport=port), tell)

    def tell(self, what, here, there, packets, marker, tell):
        """Sends packets at one end and tells what came out at the other, and what came back."""
        for packet in packets:
            here.send(packet)
        self.markers += 1
        mark = b"mark %d" % self.markers
        here.send(marker(self.markers))
        came, end = [], time.monotonic() + 5
        while True:
            packet = there.receive(end)
            assert packet is not None, f"{what}: the marker is lost after {came}"
            if UDP in packet and bytes(packet[UDP].payload).startswith(b"mark"):
                if bytes(packet[UDP].payload) == mark:
                    break
                continue
            came.append(packet)
        # What is an answer to the packets has been on its way for as long as the marker has.
        back = []
        while packet := here.receive(time.monotonic() + 0.05):
            back.append(packet)
        lines = tell(came) if tell else [shown(packet) for packet in came]
        lines += [f"back: {shown(packet)}" for packet in back]
        for line in lines or ["nothing"]:
            print(f"{what}: {line}")


def udp(source, target, sport, dport, size=10, **ip):
    kind = IPv6 if ":" in source else IP
    return kind(src=source, dst=target, **ip) / UDP(sport=sport, dport=dport) / Raw(bytes(i % 251 for i in range(size)))


def flow(c, sport=5000, dport=6000):
    """A UDP flow of each family, by which answers are let in."""
    c.out("a flow", udp(INSIDE, SERVER, sport, dport))
    c.out("a flow, v6", udp(INSIDE6, SERVER6, sport, dport))


def headers(c):
    """IPv4 options, IPv6 extension headers, checksums, other protocols."""
    flow(c)
    there, back = (INSIDE, SERVER, 5000, 6000), (SERVER, OUTSIDE, 6000, 5000)
    there6, back6 = (INSIDE6, SERVER6, 5000, 6000), (SERVER6, OUTSIDE6, 6000, 5000)
    for what, send, a, a6 in (("out", c.out, there, there6), ("back", c.back, back, back6)):
        send(f"{what}, options", udp(*a, options=[IPOption_NOP(), IPOption_RR(length=15, routers=["0.0.0.0"] * 3)]))
        packet = udp(*a)
        packet[UDP].chksum = 0
        send(f"{what}, no UDP checksum", packet)
        packet = udp(*a)
        packet[UDP].chksum = 0x1234
        send(f"{what}, a wrong UDP checksum", packet)
        send(f"{what}, a wrong header checksum", udp(*a, chksum=0x1234))
        send(f"{what}, hop limit 1", udp(*a, ttl=1))
        send(f"{what}, the reserved flag", udp(*a, flags="evil"))
        packet = udp(*a6)
        packet[UDP].chksum = 0x1234
        send(f"{what}, a wrong UDP checksum, v6", packet)
        source, target, sport, dport = a6
        for name, header in (
            ("hop-by-hop", IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)])),
            ("destination options", IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])),
        ):
            packet = IPv6(src=source, dst=target) / header / UDP(sport=sport, dport=dport) / Raw(b"extended")
            # Scapy sums with the last header's number, as it should.
            send(f"{what}, {name}", packet)
        send(f"{what}, hop limit 1, v6", udp(*a6, hlim=1))


def protocols(c):
    """Protocols without ports, by their addresses alone."""
    for proto in (47, 50, 99):
        c.out(f"out, {proto}", IP(src=INSIDE, dst=SERVER, proto=proto) / Raw(b"\0\0\x08\0 whatever"))
        c.back(f"back, {proto}", IP(src=SERVER, dst=OUTSIDE, proto=proto) / Raw(b"\0\0\x08\0 whatever"))
        c.out(f"out, {proto}, v6", IPv6(src=INSIDE6, dst=SERVER6, nh=proto) / Raw(b"\0\0\x08\0 whatever"))
        c.back(f"back, {proto}, v6", IPv6(src=SERVER6, dst=OUTSIDE6, nh=proto) / Raw(b"\0\0\x08\0 whatever"))
    c.back("unasked, 98", IP(src=SERVER, dst=OUTSIDE, proto=98) / Raw(b"whatever"))
    c.back("of a stranger, 47", IP(src="198.51.100.11", dst=OUTSIDE, proto=47) / Raw(b"\0\0\x08\0 whatever"))


def wholes(came):
    """What a host makes of fragments, which takes none that overlap (RFC 5722): a router may put them together or not."""
    datagrams, lines = {}, []
    for packet in came:
        if packet.version == 4:
            key = (packet.src, packet.dst, packet.id)
            offset, more, data = packet.frag * 8, bool(packet.flags.MF), raw(packet)[packet.ihl * 4:packet.len]
        elif packet.nh == 44:
            head = packet.payload
            key = (packet.src, packet.dst, head.id)
            offset, more, data = head.offset * 8, bool(head.m), raw(packet)[48:]
        else:
            key, offset, more, data = (packet.src, packet.dst, None), 0, False, raw(packet)[40:]
        datagrams.setdefault(key, {})[offset, len(data)] = more, data
    for (source, target, _), parts in datagrams.items():
        have, end = b"", None
        for (offset, size), (more, data) in sorted(parts.items()):
            if offset != len(have):
                break
            have += data
            if not more:
                end = offset + size
        else:
            if end == len(have):
                kind = IPv6 if ":" in source else IP
                packet = kind(raw(kind(src=source, dst=target) / UDP(have)))
                sum_ = (in6_chksum if kind is IPv6 else in4_chksum)(17, packet, have)
                fine = "" if sum_ in (0, 0xFFFF) else ", wrong checksum"
                sport, dport = (int.from_bytes(have[i:i + 2], "big") for i in (0, 2))
                lines.append(f"{source}:{sport} > {target}:{dport}, {len(have)} bytes{fine}")
                continue
    return lines or ["no whole datagram"]


def cut6(source, target, sport, dport, ip_id):
    data = raw(IPv6(src=source, dst=target) / UDP(sport=sport, dport=dport) / Raw(bytes(i % 251 for i in range(2000))))[40:]
    return [
        IPv6(src=source, dst=target) / IPv6ExtHdrFragment(nh=17, offset=at // 8, m=int(at + 800 < len(data)), id=ip_id) / Raw(data[at:at + 800])
        for at in range(0, len(data), 800)
    ]


def fragments(c):
    """In order, in disorder, doubled, overlapping, with one missing, and too long."""
    flow(c)
    there, back = (INSIDE, SERVER, 5000, 6000), (SERVER, OUTSIDE, 6000, 5000)
    there6, back6 = (INSIDE6, SERVER6, 5000, 6000), (SERVER6, OUTSIDE6, 6000, 5000)
    for way, send, ends, ends6 in (("out", c.out, there, there6), ("back", c.back, back, back6)):
        for family, cut in (
            ("", lambda n: fragment(udp(*ends, size=2000, id=n), fragsize=800)),
            (", v6", lambda n: cut6(*ends6, n)),
        ):
            def tell(what, *packets):
                send(f"{way}{family}, {what}", *packets, tell=wholes)
            one, two, three = cut(1)
            tell("in order", one, two, three)
            one, two, three = cut(2)
            tell("backwards", three, two, one)
            one, two, three = cut(3)
            tell("the middle last", one, three, two)
            one, two, three = cut(4)
            tell("one missing", one, three)
            one, two, three = cut(5)
            tell("one twice", one, two, two, three)
            tell("two at once", *(packet for pair in zip(cut(6), cut(7)) for packet in pair))
            one, two, three = cut(8)
            if family:
                two.payload.offset -= 10
            else:
                two.frag -= 10
            tell("overlapping", one, two, three)
        send(f"{way}, too long", IP(src=ends[0], dst=ends[1], id=10, proto=17, frag=8189) / Raw(b"x" * 64), tell=wholes)


def errors(c):
    """What the world says of packets, and what it only pretends to."""
    flow(c)
    sent = udp(OUTSIDE, SERVER, 5000, 6000)
    sent6 = udp(OUTSIDE6, SERVER6, 5000, 6000)
    for what, error in (
        ("port unreachable", ICMP(type=3, code=3)),
        ("host unreachable", ICMP(type=3, code=1)),
        ("fragmentation needed", ICMP(type=3, code=4, nexthopmtu=1300)),
        ("time exceeded", ICMP(type=11, code=0)),
        ("parameter problem", ICMP(type=12, code=0)),
    ):
        c.back(what, IP(src=ROUTER, dst=OUTSIDE) / error / raw(sent)[:28])
    c.back("source quench", IP(src=ROUTER, dst=OUTSIDE) / ICMP(type=4, code=0) / raw(sent)[:28])
    c.back("of another flow", IP(src=ROUTER, dst=OUTSIDE) / ICMP(type=3, code=3) / raw(udp(OUTSIDE, SERVER, 5001, 6000))[:28])
    c.back("of another's packet", IP(src=ROUTER, dst=OUTSIDE) / ICMP(type=3, code=3) / raw(udp("192.0.2.9", SERVER, 5000, 6000))[:28])
    c.back("cut short", IP(src=ROUTER, dst=OUTSIDE) / ICMP(type=3, code=3) / raw(sent)[:22])
    bad = IP(src=ROUTER, dst=OUTSIDE) / ICMP(type=3, code=3, chksum=0x1234) / raw(sent)[:28]
    c.back("with a wrong checksum", bad)
    for what, error in (
        ("no route", ICMPv6DestUnreach(code=0)),
        ("port unreachable", ICMPv6DestUnreach(code=4)),
        ("too big", ICMPv6PacketTooBig(mtu=1300)),
        ("time exceeded", ICMPv6TimeExceeded(code=0)),
    ):
        c.back(f"{what}, v6", IPv6(src=ROUTER6, dst=OUTSIDE6) / error / raw(sent6)[:48])
    c.back("of another flow, v6", IPv6(src=ROUTER6, dst=OUTSIDE6) / ICMPv6DestUnreach(code=4) / raw(udp(OUTSIDE6, SERVER6, 5001, 6000))[:48])
    # The container's own errors about what it was sent.
    heard = udp(SERVER, INSIDE, 6000, 5000)
    c.out("the container's", IP(src=INSIDE, dst=SERVER) / ICMP(type=3, code=2) / raw(heard)[:28])
    c.out("the container's, v6", IPv6(src=INSIDE6, dst=SERVER6) / ICMPv6DestUnreach(code=1) / raw(udp(SERVER6, INSIDE6, 6000, 5000))[:48])
    c.out("the container's, of nothing", IP(src=INSIDE, dst=SERVER) / ICMP(type=3, code=2) / raw(udp(SERVER, INSIDE, 6000, 5005))[:28])


class Tcp:
    """The two ends of a connection, made by hand."""

    def __init__(self, c, sport, v6=False):
        self.c, self.sport, self.v6 = c, sport, v6
        self.inside = (INSIDE6, SERVER6) if v6 else (INSIDE, SERVER)
        self.outside = (SERVER6, OUTSIDE6) if v6 else (SERVER, OUTSIDE)

    def segment(self, ends, ports, flags, seq, ack, data=b"", **tcp):
        kind = IPv6 if self.v6 else IP
        return kind(src=ends[0], dst=ends[1]) / TCP(sport=ports[0], dport=ports[1], flags=flags, seq=seq, ack=ack, **tcp) / Raw(data)

    def out(self, what, flags, seq, ack, data=b"", **tcp):
        return self.c.out(what, self.segment(self.inside, (self.sport, 80), flags, seq, ack, data, **tcp))

    def back(self, what, flags, seq, ack, data=b"", **tcp):
        return self.c.back(what, self.segment(self.outside, (80, self.sport), flags, seq, ack, data, **tcp))

    def open(self):
        self.out("SYN", "S", 1000, 0, window=10000)
        self.back("SYN-ACK", "SA", 5000, 1001, window=10000)
        self.out("ACK", "A", 1001, 5001, window=10000)


def tcp(c):
    """A connection, what strangers say in its name, and its end."""
    t = Tcp(c, 4000)
    t.open()
    t.out("data", "PA", 1001, 5001, b"hello")
    t.back("data back", "PA", 5001, 1006, b"there")
    t.out("acknowledged", "A", 1006, 5006, window=10000)
    t.back("a reset far outside", "R", 5006 + 3_000_000, 0)
    t.back("a reset with nothing acknowledged, far outside", "R", 900_000, 0)
    t.back("data far outside", "PA", 5006 + 3_000_000, 1006, b"blind")
    t.back("an acknowledgement of what was never sent", "A", 5006, 1006 + 5_000_000)
    t.out("data after that", "PA", 1006, 5006, b"still")
    t.back("and back", "PA", 5006, 1011, b"here")
    t.back("a repetition", "PA", 5006, 1011, b"here")
    t.out("an urgent byte", "PAU", 1011, 5010, b"!", urgptr=1)
    t.out("a keep-alive", "A", 1010, 5010)
    t.back("its answer", "A", 5010, 1012)
    t.out("none of the flags", 0, 1012, 5010)
    t.out("SYN and FIN", "SF", 1012, 5010)
    t.out("all of them", "FSRPAUEC", 1012, 5010)
    t.out("congestion marks", "PAEC", 1012, 5010, b"x")
    t.back("a wrong checksum", "PA", 5010, 1013, b"bad", chksum=0x1234)
    t.out("FIN", "FA", 1013, 5010)
    t.back("half closed", "PA", 5010, 1014, b"half")
    t.back("FIN back", "FA", 5014, 1014)
    t.out("the last", "A", 1014, 5015)

    t = Tcp(c, 4001)
    t.open()
    t.back("the right reset", "RA", 5001, 1001)
    t.back("data after the reset", "PA", 5001, 1001, b"late")

    t = Tcp(c, 4002)
    t.out("SYN", "S", 1000, 0)
    t.back("refused", "RA", 0, 1001)

    t = Tcp(c, 4003)
    t.out("SYN", "S", 1000, 0)
    t.back("a blind reset of a SYN", "R", 77, 0)
    t.back("a refusal of another SYN", "RA", 0, 7777)
    t.back("SYN-ACK after it", "SA", 5000, 1001)

    t = Tcp(c, 4004)
    t.out("the middle of a flow that is not there", "PA", 1, 1, b"middle")
    t.out("its FIN", "FA", 1, 1)
    t.out("its reset", "R", 1, 0)
    t = Tcp(c, 4005)
    t.back("unasked data", "PA", 1, 1, b"middle")
    t.back("an unasked SYN-ACK", "SA", 1, 1)
    t.back("an unasked reset", "RA", 1, 1)

    t = Tcp(c, 4006, v6=True)
    t.open()
    t.out("data, v6", "PA", 1001, 5001, b"hello")
    t.back("a reset far outside, v6", "R", 5001 + 3_000_000, 0)
    t.back("data back, v6", "PA", 5001, 1006, b"there")
    t.back("the right reset, v6", "RA", 5006, 1006)

    # Both ends open at once (RFC 5382 REQ-2).
    t = Tcp(c, 4007)
    t.out("simultaneous SYN", "S", 1000, 0)
    t.back("simultaneous SYN back", "S", 5000, 0)
    t.out("simultaneous SYN-ACK", "SA", 1000, 5001)
    t.back("simultaneous SYN-ACK back", "SA", 5000, 1001)
    t.out("simultaneous data", "PA", 1001, 5001, b"both")


if __name__ == "__main__":
    _, pid, namespace, conversation = sys.argv
    globals()[conversation](Conversation(pid, namespace))
