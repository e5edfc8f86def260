//! `resolv.conf(5)`: the host's, read for its resolvers and search list, and the container's, written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

/// What a resolv.conf says, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    /// Name servers, in order.
    pub(crate) servers: Vec<SocketAddr>,
    /// The search list.
    pub(crate) search: Vec<String>,
}

/// Where the host says who resolves its names.
pub(crate) const HOST_FILE: &str = "/etc/resolv.conf";

/// The DNS port.
pub(crate) const DNS: u16 = 53;

impl ResolvConf {
    /// The host's. One that is missing or names no server means the server on the host's own loopback, as it does to
    /// the C library.
    pub(crate) fn of_host() -> Self {
        Self::of_file(Path::new(HOST_FILE))
    }

    fn of_file(path: &Path) -> Self {
        let text = std::fs::read(path).unwrap_or_default();
        let mut conf = Self::parse(&String::from_utf8_lossy(&text), interface_index);
        if conf.servers.is_empty() {
            conf.servers.push((Ipv4Addr::LOCALHOST, DNS).into());
        }
        conf
    }

    /// Reads `text`; `scope` gives the index of an interface named in a link-local address. Lines that say nothing to
    /// us, or are wrong, are passed over as the C library passes over them.
    fn parse(text: &str, scope: impl Fn(&str) -> Option<u32>) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(|w| server(w, &scope))),
                Some("domain") => conf.search = words.next().map(str::to_owned).into_iter().collect(),
                Some("search") => conf.search = words.map(str::to_owned).collect(),
                Some(_) | None => {}
            }
        }
        conf.search.retain(|d| d != ".");
        conf
    }
}

fn server(text: &str, scope: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    if let Some((address, interface)) = text.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        let index = interface.parse().ok().or_else(|| scope(interface))?;
        return Some(SocketAddrV6::new(address, DNS, 0, index).into());
    }
    let address: IpAddr = text.parse().ok()?;
    Some(SocketAddr::new(address, DNS))
}

fn interface_index(name: &str) -> Option<u32> {
    pnet::datalink::interfaces()
        .into_iter()
        .find(|i| i.name == name)
        .map(|i| i.index)
}

/// The container's resolv.conf.
pub(crate) fn for_container(servers: &[IpAddr], search: &[String]) -> String {
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

/// The container's hosts file: the usual names, its own, and those of `--add-host`.
pub(crate) fn hosts_file(hostname: &str, addresses: &[IpAddr], more: &[(String, IpAddr)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (name, address) in more {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    for address in addresses {
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_servers_search_and_scopes() {
        let text = "# comment\ndomain old.example\nsearch a.example b.example ; more\nnameserver 192.0.2.1\n\
                    nameserver fe80::1%eth9\nnameserver fe80::2%7\nnameserver nonsense\nnameserver\n\
                    options ndots:2\nnameserver 2001:db8::1 # that one\n";
        let conf = ResolvConf::parse(text, |name| (name == "eth9").then_some(9));
        let shown: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "192.0.2.1:53",
                "[fe80::1%9]:53",
                "[fe80::2%7]:53",
                "[2001:db8::1]:53"
            ]
        );
        assert_eq!(conf.search, ["a.example", "b.example"]);
    }

    #[test]
    fn a_scope_that_is_not_there_is_no_server() {
        assert!(
            ResolvConf::parse("nameserver fe80::1%gone", |_| None)
                .servers
                .is_empty()
        );
    }

    #[test]
    fn a_missing_file_means_the_local_server() {
        let conf = ResolvConf::of_file(Path::new("/nonexistent/resolv.conf"));
        assert_eq!(conf.servers, ["127.0.0.1:53".parse().expect("address")]);
    }

    #[test]
    fn the_containers_files_read_back() {
        let text = for_container(&["10.0.2.2".parse().expect("address")], &["x.example".into()]);
        assert_eq!(text, "search x.example\nnameserver 10.0.2.2\n");
        let conf = ResolvConf::parse(&text, |_| None);
        assert_eq!((conf.servers.len(), conf.search.len()), (1, 1));
        let hosts = hosts_file("web", &["10.0.2.100".parse().expect("address")], &[]);
        assert!(hosts.contains("\n10.0.2.100\tweb\n") && hosts.starts_with("127.0.0.1\tlocalhost\n"));
    }
}
