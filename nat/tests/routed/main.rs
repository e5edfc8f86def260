//! Routed egress: what RFC 4787, RFC 5382 and RFC 5508 ask of a gateway that translates packets, and what else it does with them.

mod again;
mod frames;
mod hostile;
mod masquerade;
mod peers;
mod published;
mod source_route;
mod tcp;
mod world;
