//! `pontoon attach` and `pontoon detach`: any network namespace as a container.

use anyhow::{Context as _, Result, ensure};

use crate::api::{AttachRequest, ContainerInfo};
use crate::args::{AttachArgs, ContainerArgs, Target};
use crate::client::{self, Front};
use crate::output;
use crate::routes::Call;

/// Attaches a namespace to networks of one front and prints the container's name.
pub(crate) fn attach(args: &AttachArgs) -> Result<()> {
    let target = match &args.target {
        // The front has a working directory of its own.
        Target::Path(path) => {
            let path = std::path::absolute(path).context("cannot tell where the namespace is")?;
            ensure!(
                // Where others' processes cannot be looked at, the front says whose it is.
                path.try_exists().unwrap_or(true),
                "there is no {}: name a network namespace",
                path.display()
            );
            Target::Path(path)
        }
        pid @ Target::Pid(_) => pid.clone(),
    };
    let request = AttachArgs {
        target,
        ..args.clone()
    }
    .request();
    let front = front(&request)?;
    let container: ContainerInfo = front
        .ask(&Call::Attach(Box::new(request)))
        .with_context(|| format!("cannot attach {}", args.name))?;
    if args.json {
        output::print_json(&container)
    } else {
        output::print(&format!("{}\n", container.name))
    }
}

/// The one front that has all the networks: a container is known to one.
fn front(request: &AttachRequest) -> Result<Front> {
    let mut fronts = Vec::new();
    for endpoint in &request.endpoints {
        fronts.push((
            endpoint.network.as_str(),
            client::of_network(&endpoint.network)?.0,
        ));
    }
    one(fronts)
}

fn one(fronts: Vec<(&str, Front)>) -> Result<Front> {
    let mut all = fronts.into_iter();
    let (network, front) = all.next().context("no network is named")?;
    for (other, its) in all {
        ensure!(
            front == its,
            "network {network} is kept by {front} and network {other} by {its}: a container is on networks of one of them"
        );
    }
    Ok(front)
}

/// Detaches a container from all its networks.
pub(crate) fn detach(args: &ContainerArgs) -> Result<()> {
    let (front, container) = client::container(args)?;
    front
        .ask::<()>(&Call::Detach {
            container: container.name.clone(),
        })
        .with_context(|| format!("cannot detach {}", container.name))?;
    output::print(&format!("{}\n", container.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_several_fronts_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let front = |name: &str| Front::at(dir.path(), name);
        let (a, b) = (front("a"), front("b"));
        assert_eq!(one(vec![("a", a.clone())]).unwrap(), a);
        assert_eq!(one(vec![("a", a.clone()), ("c", a.clone())]).unwrap(), a);
        let e = one(vec![("a", a), ("b", b)]).unwrap_err().to_string();
        assert!(e.contains("network a is kept by network a"), "{e}");
        assert!(e.contains("network b by network b"), "{e}");
    }
}
