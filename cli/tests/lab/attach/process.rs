//! The program's own processes, spoken to as the front speaks to them: JSON with descriptors over a `SOCK_SEQPACKET`.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pontoon_fixtures::lab::{Who, World};
use pontoon_nat::config::{Config, Egress, Filtering, HostLoopback, LinkLocal, Outbound, Subnet4, Subnet6};
use pontoon_switch::MacAddr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde_json::{Value, json};

/// A running `pontoon __NAME`.
pub(crate) struct Process {
    socket: OwnedFd,
    child: Child,
}

impl Process {
    /// Starts one in the world's host, as `who`.
    pub(crate) fn start(world: &World, who: Who, name: &str) -> Self {
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a socket pair");
        let timeout = Some(Duration::from_secs(15));
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, timeout)
            .expect("a timeout");
        let mut c = Command::new("nsenter");
        c.args([
            "-t",
            &world.init().to_string(),
            "-m",
            "-u",
            "-i",
            "-n",
            "-p",
            "--",
        ]);
        if who != Who::Root {
            let uid = who.uid().to_string();
            c.args([
                "setpriv",
                "--reuid",
                &uid,
                "--regid",
                &uid,
                "--clear-groups",
                "--inh-caps=-all",
                "--",
            ]);
        }
        c.args(["/run/bin/pontoon", name])
            .env_clear()
            .env("PATH", pontoon_fixtures::lab::PATH);
        if let Some(fallback) = std::env::var_os("PONTOON_FALLBACK") {
            c.env("PONTOON_FALLBACK", fallback);
        }
        let child = c
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()
            .expect("start nsenter");
        Self { socket, child }
    }

    /// Tells it something.
    pub(crate) fn tell(&self, message: &Value, fds: &[BorrowedFd<'_>]) {
        let bytes = message.to_string().into_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
        rustix::net::sendmsg(
            &self.socket,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .unwrap_or_else(|e| panic!("tell {message}: {e}"));
    }

    /// What it says next, within 15 seconds.
    pub(crate) fn hear(&self) -> (Value, Vec<OwnedFd>) {
        let mut buf = vec![0; 256 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut buf)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .expect("an answer");
        let fds = control.drain().flat_map(|m| match m {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
            _ => Vec::new(),
        });
        let fds = fds.collect();
        let text = String::from_utf8_lossy(&buf[..got.bytes]).into_owned();
        (
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("`{text}`: {e}")),
            fds,
        )
    }

    /// Kills it, and whatever it has open goes.
    pub(crate) fn kill(&mut self) {
        // It ends when its socket does; nsenter with it.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Has a helper do a task in `place`; gives the answer.
pub(crate) fn perform(
    world: &World,
    who: Who,
    place: Option<BorrowedFd<'_>>,
    task: &Value,
) -> (Result<Value, String>, Option<OwnedFd>) {
    let helper = Process::start(world, who, "__attach");
    helper.tell(task, place.as_slice());
    let (answer, fds) = helper.hear();
    let result = match (&answer["Ok"], &answer["Err"]) {
        (_, Value::String(why)) => Err(why.clone()),
        (made, _) => Ok(made.clone()),
    };
    (result, fds.into_iter().next())
}

/// A packet process, with the sandbox required whole.
pub(crate) struct Switch {
    process: Process,
}

impl Switch {
    /// Starts one whose network is `net` (with `net6`), the gateway of which is number 1.
    pub(crate) fn start(world: &World, who: Who, net: &str, net6: &str, mtu: u16) -> Self {
        let process = Process::start(world, who, "__packet");
        let net: ipnet::Ipv4Net = net.parse().expect("a network");
        let net6: ipnet::Ipv6Net = net6.parse().expect("a network");
        let first = |ip: u128| ip + 1;
        let gateway = Config {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            subnet4: Some(Subnet4::new(net, u32::from(net.network()).wrapping_add(1).into())),
            subnet6: Some(Subnet6::new(net6, first(net6.network().into()).into())),
            mtu,
            resolvers: Vec::new(),
            search: Vec::new(),
            hosts: Vec::new(),
            host_loopback: HostLoopback::Unreachable,
            link_local: LinkLocal::Refused,
            egress: Egress::Host,
            filtering: Filtering::AddressDependent,
            max_flows: 10_000,
            max_flows_per_container: 10_000,
        };
        let required = "required";
        let network = json!({
            "name": "net",
            "gateway": gateway,
            "outbound": Outbound::default(),
            "gateway_vlan": 0,
            "sandbox": {"capabilities": required, "root": required, "landlock": required, "seccomp": required},
        });
        let switch = Self { process };
        assert_eq!(switch.ask(&json!({"configure": network}), &[]), json!("done"));
        switch
    }

    /// A command, and the answer to it.
    pub(crate) fn ask(&self, command: &Value, fds: &[BorrowedFd<'_>]) -> Value {
        self.process.tell(command, fds);
        let (answer, _) = self.process.hear();
        answer["reply"].clone()
    }

    /// Makes `fd`, of `kind`, a port.
    pub(crate) fn add(
        &self,
        name: &str,
        kind: &str,
        fd: &OwnedFd,
        made: &Value,
        addresses: &[IpAddr],
    ) -> u64 {
        let port = json!({"add-port": {
            "name": name, "kind": kind, "mtu": made["mtu"], "icc": true, "storm": "default", "vlans": "all",
            "behind": {"container": {"mac": made["mac"], "addresses": addresses}}, "names": [name], "capture": false,
        }});
        let reply = self.ask(&port, &[fd.as_fd()]);
        reply["port"].as_u64().unwrap_or_else(|| panic!("{reply}"))
    }

    /// Bytes in each frame, on average, that `port` has received and sent.
    pub(crate) fn frame_sizes(&self, port: u64) -> (u64, u64) {
        let reply = self.ask(&json!({"stats": {"offset": 0}}), &[]);
        let ports = reply["stats"]["ports"].as_array().expect("ports");
        let port = ports
            .iter()
            .find(|p| p["port"] == port)
            .unwrap_or_else(|| panic!("{reply}"));
        let n = |what: &str| port[what].as_u64().expect("a counter");
        (
            n("rx_bytes") / n("rx_frames").max(1),
            n("tx_bytes") / n("tx_frames").max(1),
        )
    }

    /// The next thing it says by itself.
    pub(crate) fn event(&self) -> Value {
        self.process.hear().0["event"].clone()
    }

    /// Ends it.
    pub(crate) fn end(mut self) {
        self.process.kill();
    }
}
