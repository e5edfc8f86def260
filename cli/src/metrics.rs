//! What `GET /metrics` answers: the state of a front in Prometheus' text format, version 0.0.4.
//!
//! Counters are those of `pontoon stats`, with the labels that tell a port from another. They begin at zero with the packet
//! process of their network, as Prometheus expects of a counter whose process has begun anew. Received means from the
//! container, sent means to it. Process ids are values and not labels: a label that changes makes another series.

use std::fmt::Write as _;

use crate::api::{ContainerInfo, NetworkInfo, PortStats, Stats, Version};

#[cfg(test)]
mod tests;

/// The media type of [`render`]'s text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text: what there is, each metric with its help and its type, whether or not it has a value.
pub(crate) fn render(
    version: &Version,
    networks: &[NetworkInfo],
    containers: &[ContainerInfo],
    stats: &[Stats],
) -> String {
    let mut text = Text::default();
    front(&mut text, version, containers);
    of_networks(&mut text, networks);
    of_ports(&mut text, stats);
    of_gateways(&mut text, stats);
    text.0
}

fn front(text: &mut Text, version: &Version, containers: &[ContainerInfo]) {
    text.begin(
        "build_info",
        Kind::Gauge,
        "The version that runs; the value is 1.",
    );
    text.sample(&[("version", &version.version)], 1);
    text.begin("containers", Kind::Gauge, "Containers that are attached.");
    text.sample(&[], containers.len() as u64);
    text.begin(
        "container_published_ports",
        Kind::Gauge,
        "Host sockets that lead to a container.",
    );
    for container in containers {
        text.sample(
            &[("container", &container.name)],
            container.published.len() as u64,
        );
    }
    text.begin(
        "container_attached_timestamp_seconds",
        Kind::Gauge,
        "When a container was attached, in Unix seconds.",
    );
    for container in containers {
        text.sample(&[("container", &container.name)], container.since);
    }
}

fn of_networks(text: &mut Text, networks: &[NetworkInfo]) {
    text.begin("network_info", Kind::Gauge, "What a network is; the value is 1.");
    for n in networks {
        let word = |is: bool| if is { "true" } else { "false" };
        let gateway = n.gateway_mac.map(|mac| mac.to_string()).unwrap_or_default();
        text.sample(
            &[
                ("network", &n.name),
                ("internal", word(n.internal)),
                ("icc", word(n.icc)),
                ("persistent", word(n.persistent)),
                ("gateway_mac", &gateway),
            ],
            1,
        );
    }
    let mut gauge = |name, help, value: fn(&NetworkInfo) -> u64| {
        text.begin(name, Kind::Gauge, help);
        for n in networks {
            text.sample(&[("network", &n.name)], value(n));
        }
    };
    gauge(
        "network_containers",
        "Interfaces of containers on a network.",
        |n| n.endpoints.len() as u64,
    );
    gauge("network_mtu_bytes", "MTU of a network.", |n| n.mtu.into());
    gauge(
        "network_created_timestamp_seconds",
        "When a network was made, in Unix seconds.",
        |n| n.since,
    );
    gauge(
        "network_packet_process_id",
        "Process that a network's packets go through: another number means that it has begun anew.",
        |n| n.packet_pid.into(),
    );
}

/// A counter of ports: its name, its help, its value.
type Column = (&'static str, &'static str, fn(&PortStats) -> u64);

fn of_ports(text: &mut Text, stats: &[Stats]) {
    let columns: [Column; 4] = [
        (
            "port_receive_frames_total",
            "Frames received from a container.",
            |p| p.rx_frames,
        ),
        (
            "port_receive_bytes_total",
            "Bytes of frames received from a container.",
            |p| p.rx_bytes,
        ),
        ("port_transmit_frames_total", "Frames sent to a container.", |p| {
            p.tx_frames
        }),
        (
            "port_transmit_bytes_total",
            "Bytes of frames sent to a container.",
            |p| p.tx_bytes,
        ),
    ];
    for (name, help, value) in columns {
        text.begin(name, Kind::Counter, help);
        for s in stats {
            for p in &s.ports {
                text.sample(
                    &[
                        ("network", &s.network),
                        ("container", &p.name),
                        ("port", &p.port.to_string()),
                        ("kind", &p.kind),
                    ],
                    value(p),
                );
            }
        }
    }
    text.begin(
        "port_dropped_frames_total",
        Kind::Counter,
        "Frames of a port that went no further, by reason.",
    );
    for s in stats {
        for p in &s.ports {
            for (reason, count) in &p.drops {
                text.sample(
                    &[
                        ("network", &s.network),
                        ("container", &p.name),
                        ("port", &p.port.to_string()),
                        ("kind", &p.kind),
                        ("reason", reason),
                    ],
                    *count,
                );
            }
        }
    }
}

fn of_gateways(text: &mut Text, stats: &[Stats]) {
    text.begin(
        "gateway_dropped_frames_total",
        Kind::Counter,
        "Frames that the gateway dropped and that belong to no port, by reason.",
    );
    for s in stats {
        for (reason, count) in &s.gateway_drops {
            text.sample(&[("network", &s.network), ("reason", reason)], *count);
        }
    }
    text.begin("flows", Kind::Gauge, "Flows now, by protocol and state.");
    for s in stats {
        for (flows, count) in &s.flows {
            let (protocol, state) = flows.split_once('/').unwrap_or((flows, ""));
            text.sample(
                &[("network", &s.network), ("protocol", protocol), ("state", state)],
                *count,
            );
        }
    }
    text.begin(
        "flows_max",
        Kind::Gauge,
        "Most flows that a network may have at once.",
    );
    for s in stats {
        text.sample(&[("network", &s.network)], s.flows_max);
    }
}

#[derive(Clone, Copy)]
enum Kind {
    /// Only ever grows, until its process ends.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// The text, and the name of the metric whose samples are being written.
#[derive(Default)]
struct Text(String, &'static str);

impl Text {
    fn begin(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        // Writing to a string cannot fail.
        let _ = write!(
            self.0,
            "# HELP pontoon_{name} {help}\n# TYPE pontoon_{name} {kind}\n"
        );
        self.1 = name;
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        let _ = write!(self.0, "pontoon_{}", self.1);
        for (i, (label, value)) in labels.iter().enumerate() {
            let value = value
                .replace('\\', r"\\")
                .replace('"', "\\\"")
                .replace('\n', r"\n");
            let mark = if i == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{mark}{label}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}
