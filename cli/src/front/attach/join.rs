//! A container that is there joins a further network, and its default route goes where it should.

use std::os::fd::AsFd;

use anyhow::{Context, anyhow};

use super::{Attaching, MAX_ENDPOINTS};
use crate::api::{ConnectRequest, ContainerInfo, EndpointSpec};
use crate::attach::{Helper, Task};
use crate::front::registry::Front;
use crate::front::{Refused, refused};

impl Front {
    /// Begins to connect a container to one more network.
    pub(in crate::front) fn begin_connect(
        &mut self,
        network: &str,
        request: ConnectRequest,
    ) -> Result<Attaching, Refused> {
        self.network(network)?;
        let container = self.container(&request.container)?;
        if container.on(network).is_some() {
            return Err(refused(
                409,
                anyhow!("container {} is on network {network} already", container.name),
            ));
        }
        let used = |i: usize| {
            container
                .endpoints
                .iter()
                .any(|e| e.info.interface == format!("eth{i}"))
        };
        let index = (0..MAX_ENDPOINTS).find(|&i| !used(i)).ok_or_else(|| {
            refused(
                409,
                anyhow!(
                    "container {} has {MAX_ENDPOINTS} interfaces already",
                    container.name
                ),
            )
        })?;
        let spec = EndpointSpec {
            network: network.to_owned(),
            ..request.endpoint
        };
        let (name, place) = (container.name.clone(), container.place.clone());
        let mut attaching = Attaching::new(name, place, Some(network.to_owned()));
        let begun = (|| {
            // The default route follows once everything is there.
            let job = self.take(spec, index, false)?;
            attaching.jobs.push(job);
            self.begin_helpers(&mut attaching)
        })();
        match begun {
            Ok(()) => Ok(attaching),
            Err(e) => {
                self.abandon(attaching);
                Err(e)
            }
        }
    }

    /// Finishes what [`Front::begin_connect`] began.
    pub(in crate::front) fn finish_connect(
        &mut self,
        attaching: Attaching,
    ) -> Result<ContainerInfo, Refused> {
        let name = attaching.name.clone();
        self.finish_attach(attaching)?;
        self.move_default(&name)?;
        self.save()?;
        Ok(self.container_info(self.container(&name)?))
    }

    /// Sees that the default route leads where it should, and what is published with it.
    pub(super) fn move_default(&mut self, name: &str) -> Result<(), Refused> {
        let container = self.container(name)?;
        let all = container
            .endpoints
            .iter()
            .map(|e| (e.info.network.as_str(), e.info.gw_priority));
        let wanted = self.default_of(all);
        let now = container.endpoints.iter().position(|e| e.info.default_route);
        if wanted == now
            && container
                .endpoints
                .iter()
                .filter(|e| e.info.default_route)
                .count()
                <= 1
        {
            return Ok(());
        }
        // Where there is none any more, the interface that had it loses it.
        let (interface, gateways) = match (wanted, now) {
            (Some(i), _) => {
                let info = &container.endpoints[i].info;
                (info.interface.clone(), self.network(&info.network)?.routers())
            }
            (None, Some(i)) => (container.endpoints[i].info.interface.clone(), Vec::new()),
            (None, None) => return Ok(()),
        };
        let mut helper = Helper::spawn()?;
        helper.begin(
            Some(container.place.door()?.as_fd()),
            &Task::Default { interface, gateways },
        )?;
        helper
            .finish()
            .with_context(|| format!("cannot change the default route of {name}"))?;
        self.spent.push(helper);
        if let Some(container) = self.containers.get_mut(name) {
            for (i, endpoint) in container.endpoints.iter_mut().enumerate() {
                endpoint.info.default_route = wanted == Some(i);
            }
        }
        self.publish_anew(name);
        Ok(())
    }
}
