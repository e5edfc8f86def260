//! What the API can do: publish ports, list them, take them back. One request is one JSON object, and so is its answer.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use anyhow::Result;
use pontoon_nat::publish::Transport;
use serde::Serialize;
use serde_json::{Value, json};

use crate::bind;

/// Whoever leads clients of a host's socket to the container.
pub(super) trait Publisher {
    /// Leads clients of `socket` to `guest`; the rule's number.
    fn publish(&mut self, transport: Transport, socket: OwnedFd, guest: SocketAddr) -> Result<u32>;

    /// Takes a rule back.
    fn unpublish(&mut self, rule: u32) -> Result<()>;
}

/// The ports that are published.
#[derive(Debug)]
pub(super) struct Forwards {
    /// Where they lead unless the request says.
    guest: Ipv4Addr,
    next: u64,
    entries: BTreeMap<u64, (Entry, u32)>,
}

/// One published port, as it is listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Entry {
    id: u64,
    proto: Transport,
    host_addr: Ipv4Addr,
    host_port: u16,
    guest_addr: Ipv4Addr,
    guest_port: u16,
}

/// A request that is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    /// In slirp4netns' words.
    what: &'static str,
    /// Why, in ours.
    detail: String,
}

impl Refusal {
    pub(super) fn new(what: &'static str, detail: impl Into<String>) -> Self {
        Self {
            what,
            detail: detail.into(),
        }
    }

    /// The answer.
    pub(super) fn answer(&self) -> Value {
        json!({"error": {"desc": format!("bad request: {}", self.what), "detail": self.detail}})
    }
}

impl Forwards {
    /// None yet; `guest` is the address of a container that is not named.
    pub(super) fn new(guest: Ipv4Addr) -> Self {
        Self {
            guest,
            next: 1,
            entries: BTreeMap::new(),
        }
    }

    /// The answer to a request.
    pub(super) fn answer(&mut self, request: &Value, publisher: &mut impl Publisher) -> Value {
        self.execute(request, publisher)
            .unwrap_or_else(|refusal| refusal.answer())
    }

    fn execute(&mut self, request: &Value, publisher: &mut impl Publisher) -> Result<Value, Refusal> {
        let Some(object) = request.as_object() else {
            return Err(Refusal::new("json_object() failed", "a request is an object"));
        };
        let Some(execute) = object.get("execute").and_then(Value::as_str) else {
            return Err(Refusal::new("no execute found", "`execute` is a string"));
        };
        let none = Value::Null;
        let arguments = object.get("arguments").unwrap_or(&none);
        match execute {
            "add_hostfwd" => self.add(arguments, publisher),
            "list_hostfwd" => Ok(self.list()),
            "remove_hostfwd" => self.remove(arguments, publisher),
            other => Err(Refusal::new(
                "unknown execute",
                format!("`{other}` is none of add_hostfwd, list_hostfwd, remove_hostfwd"),
            )),
        }
    }

    fn add(&mut self, arguments: &Value, publisher: &mut impl Publisher) -> Result<Value, Refusal> {
        let proto = match arguments.get("proto").and_then(Value::as_str) {
            Some("tcp") => Transport::Tcp,
            Some("udp") => Transport::Udp,
            Some(_) | None => {
                return Err(Refusal::new(
                    "add_hostfwd: bad arguments.proto",
                    "`tcp` or `udp` is expected",
                ));
            }
        };
        let host_addr = address(arguments, "host_addr", Ipv4Addr::UNSPECIFIED)
            .map_err(|e| Refusal::new("add_hostfwd: bad arguments.host_addr", e))?;
        let host_port = port(arguments, "host_port")
            .map_err(|e| Refusal::new("add_hostfwd: bad arguments.host_port", e))?;
        let guest_addr = address(arguments, "guest_addr", self.guest)
            .map_err(|e| Refusal::new("add_hostfwd: bad arguments.guest_addr", e))?;
        let guest_port = port(arguments, "guest_port")
            .map_err(|e| Refusal::new("add_hostfwd: bad arguments.guest_port", e))?;
        let at = SocketAddrV4::new(host_addr, host_port).into();
        let rule = bind::one(proto, at)
            .and_then(|socket| {
                publisher.publish(proto, socket, SocketAddrV4::new(guest_addr, guest_port).into())
            })
            .map_err(|e| Refusal::new("add_hostfwd: slirp_add_hostfwd failed", format!("{e:#}")))?;
        let id = self.next;
        self.next += 1;
        let entry = Entry {
            id,
            proto,
            host_addr,
            host_port,
            guest_addr,
            guest_port,
        };
        self.entries.insert(id, (entry, rule));
        Ok(json!({"return": {"id": id}}))
    }

    /// slirp4netns answers with `entries` alone, its manual has them in `return`: callers find them in either.
    fn list(&self) -> Value {
        let entries: Vec<&Entry> = self.entries.values().map(|(entry, _)| entry).collect();
        json!({"entries": entries, "return": {"entries": entries}})
    }

    fn remove(&mut self, arguments: &Value, publisher: &mut impl Publisher) -> Result<Value, Refusal> {
        let id = arguments.get("id").and_then(number);
        let Some((id, rule)) = id.and_then(|id| Some((id, self.entries.get(&id)?.1))) else {
            return Err(Refusal::new(
                "remove_hostfwd: bad arguments.id",
                "nothing is published under that id",
            ));
        };
        publisher
            .unpublish(rule)
            .map_err(|e| Refusal::new("remove_hostfwd: slirp_remove_hostfwd failed", format!("{e:#}")))?;
        self.entries.remove(&id);
        Ok(json!({"return": {}}))
    }
}

/// The address in `arguments`; `default` if there is none or it is empty.
fn address(arguments: &Value, name: &str, default: Ipv4Addr) -> Result<Ipv4Addr, String> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::String(text)) if text.is_empty() => Ok(default),
        Some(Value::String(text)) => text.parse().map_err(|_| format!("`{text}` is no IPv4 address")),
        Some(_) => Err(format!("{name} is a string")),
    }
}

fn port(arguments: &Value, name: &str) -> Result<u16, String> {
    arguments
        .get(name)
        .and_then(number)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|&n| n != 0)
        .ok_or_else(|| format!("{name} is a number from 1 to 65535"))
}

/// A whole number, however it is written.
fn number(value: &Value) -> Option<u64> {
    let whole = |f: f64| (f >= 0.0 && f.fract() == 0.0 && f < 1e15).then_some(f as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Publishes nothing, but keeps the sockets.
    #[derive(Default)]
    struct Pretend {
        rules: BTreeMap<u32, (OwnedFd, SocketAddr)>,
        next: u32,
    }

    impl Publisher for Pretend {
        fn publish(&mut self, _: Transport, socket: OwnedFd, guest: SocketAddr) -> Result<u32> {
            self.next += 1;
            self.rules.insert(self.next, (socket, guest));
            Ok(self.next)
        }

        fn unpublish(&mut self, rule: u32) -> Result<()> {
            self.rules.remove(&rule);
            Ok(())
        }
    }

    struct Api {
        forwards: Forwards,
        publisher: Pretend,
    }

    impl Api {
        fn new() -> Self {
            Self {
                forwards: Forwards::new([10, 0, 2, 100].into()),
                publisher: Pretend::default(),
            }
        }

        fn ask(&mut self, request: &str) -> Value {
            let request: Value = serde_json::from_str(request).expect("JSON");
            self.forwards.answer(&request, &mut self.publisher)
        }

        fn refusal(&mut self, request: &str) -> String {
            let answer = self.ask(request);
            assert!(answer["error"]["detail"].is_string(), "{answer}");
            answer["error"]["desc"].as_str().expect("a refusal").to_owned()
        }
    }

    /// A port that was free a moment ago.
    fn free_port() -> u16 {
        let socket = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
        socket.local_addr().expect("bound").port()
    }

    #[test]
    fn ports_are_published_listed_and_taken_back() {
        let mut api = Api::new();
        let port = free_port();
        let add = format!(
            r#"{{"execute":"add_hostfwd","arguments":{{"proto":"tcp","host_addr":"","host_port":{port},"guest_port":80.0}}}}"#
        );
        assert_eq!(api.ask(&add), json!({"return": {"id": 1}}));
        assert_eq!(api.publisher.rules[&1].1, "10.0.2.100:80".parse().unwrap());
        let entry = json!({
            "id": 1, "proto": "tcp", "host_addr": "0.0.0.0", "host_port": port,
            "guest_addr": "10.0.2.100", "guest_port": 80,
        });
        let list = r#"{"execute":"list_hostfwd"}"#;
        assert_eq!(
            api.ask(list),
            json!({"entries": [entry], "return": {"entries": [entry]}})
        );
        assert_eq!(
            api.refusal(&add),
            "bad request: add_hostfwd: slirp_add_hostfwd failed",
            "taken"
        );
        let remove = r#"{"execute":"remove_hostfwd","arguments":{"id":1}}"#;
        assert_eq!(api.ask(remove), json!({"return": {}}));
        assert_eq!(
            api.refusal(remove),
            "bad request: remove_hostfwd: bad arguments.id"
        );
        assert!(api.publisher.rules.is_empty());
        assert_eq!(api.ask(&add), json!({"return": {"id": 2}}), "ids count up");
    }

    #[test]
    fn what_is_wrong_is_named_in_slirp4netns_words() {
        let mut api = Api::new();
        let add = |arguments: &str| format!(r#"{{"execute":"add_hostfwd","arguments":{arguments}}}"#);
        for (request, words) in [
            ("[]", "json_object() failed"),
            ("7", "json_object() failed"),
            (r#"{"unexpectedjson":42}"#, "no execute found"),
            (r#"{"execute":7}"#, "no execute found"),
            (r#"{"execute":"bad"}"#, "unknown execute"),
            (r#"{"execute":"add_hostfwd"}"#, "add_hostfwd: bad arguments.proto"),
            (&add("{}"), "add_hostfwd: bad arguments.proto"),
            (&add(r#"{"proto":"bad"}"#), "add_hostfwd: bad arguments.proto"),
            (
                &add(r#"{"proto":"tcp","host_addr":"x","host_port":8080,"guest_port":80}"#),
                "add_hostfwd: bad arguments.host_addr",
            ),
            (
                &add(r#"{"proto":"tcp","host_port":65536,"guest_port":80}"#),
                "add_hostfwd: bad arguments.host_port",
            ),
            (
                &add(r#"{"proto":"udp","host_port":8080,"guest_addr":"fe80::1","guest_port":80}"#),
                "add_hostfwd: bad arguments.guest_addr",
            ),
            (
                &add(r#"{"proto":"udp","host_port":8080,"guest_port":0}"#),
                "add_hostfwd: bad arguments.guest_port",
            ),
            (
                &add(r#"{"proto":"tcp","host_addr":"192.0.2.1","host_port":8080,"guest_port":80}"#),
                "add_hostfwd: slirp_add_hostfwd failed",
            ),
            (
                r#"{"execute":"remove_hostfwd"}"#,
                "remove_hostfwd: bad arguments.id",
            ),
        ] {
            assert_eq!(api.refusal(request), format!("bad request: {words}"), "{request}");
        }
        assert!(api.publisher.rules.is_empty());
    }
}
