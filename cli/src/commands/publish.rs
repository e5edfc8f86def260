//! `pontoon publish` and `pontoon unpublish`: ports of a running container.

use anyhow::{Context as _, Result};

use super::port::render;
use crate::api::{PublishRequest, PublishedPort};
use crate::args::PublishArgs;
use crate::client;
use crate::output;
use crate::routes::Call;

/// Publishes ports, all or none, and prints where they have become reachable.
pub(crate) fn publish(args: &PublishArgs) -> Result<()> {
    change(args, "publish ports of", |container, ports| Call::Publish {
        container,
        ports,
    })
}

/// Takes published ports back and prints which.
pub(crate) fn unpublish(args: &PublishArgs) -> Result<()> {
    change(args, "take back ports of", |container, ports| Call::Unpublish {
        container,
        ports,
    })
}

fn change(args: &PublishArgs, what: &str, call: impl Fn(String, PublishRequest) -> Call) -> Result<()> {
    let (front, container) = client::container(&args.container)?;
    let request = PublishRequest {
        specs: args.specs.clone(),
    };
    let changed: Vec<PublishedPort> = front
        .ask(&call(container.name.clone(), request))
        .with_context(|| format!("cannot {what} {}, which is with {front}", container.name))?;
    let changed = output::sorted(&changed);
    if args.json {
        output::print_json(&changed)
    } else {
        output::print(&render(&changed, false))
    }
}
