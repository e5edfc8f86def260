//! Interfaces of containers are made anew, where those that there were are gone with their packet process.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::{Attaching, Job};
use crate::api::EndpointSpec;
use crate::attach::Helper;
use crate::front::network::Taken;
use crate::front::registry::Front;

/// How long interfaces may be there still after their packet process was killed: the kernel takes one away after the other.
const LINGERING: Duration = Duration::from_secs(10);

impl Front {
    /// Makes the interfaces of containers anew: those on `network`, or all. What cannot be made is given up.
    pub(in crate::front) fn reattach(&mut self, network: Option<&str>) {
        let mut work: Vec<(String, usize)> = Vec::new();
        for container in self.containers.values() {
            for (i, endpoint) in container.endpoints.iter().enumerate() {
                if network.is_none_or(|n| n == endpoint.info.network) {
                    work.push((container.name.clone(), i));
                }
            }
        }
        let names: std::collections::BTreeSet<String> = work.iter().map(|(name, _)| name.clone()).collect();
        let until = Instant::now() + LINGERING;
        // As many at a time as keep a machine busy without making it slow.
        for some in work.chunks(8) {
            let mut begun: Vec<(String, usize, Result<Job>)> = some
                .iter()
                .map(|(name, i)| (name.clone(), *i, self.begin_again(name, *i)))
                .collect();
            for (name, i, job) in &mut begun {
                let made = match job {
                    Ok(job) => self.finish_again(name, *i, job, until),
                    Err(e) => Err(anyhow!("{e:#}")),
                };
                if let Err(e) = made {
                    tracing::error!("{name} has lost an interface: {e:#}");
                    if let Some(endpoint) = self
                        .containers
                        .get_mut(name.as_str())
                        .and_then(|c| c.endpoints.get_mut(*i))
                    {
                        endpoint.info.port = 0;
                    }
                }
            }
        }
        for name in names {
            self.republish(&name, network);
            let again = self
                .apply_rules(&name)
                .and_then(|()| self.apply_links(&name))
                .map_err(|e| e.error);
            if let Err(e) = again {
                tracing::error!("{name}: {e:#}");
            }
        }
        for container in self.containers.values_mut() {
            for endpoint in &mut container.endpoints {
                if network.is_none_or(|n| n == endpoint.info.network) {
                    endpoint.view.clear();
                }
            }
        }
        let told: Vec<String> = self.networks.keys().cloned().collect();
        for name in told.iter().filter(|name| network.is_none_or(|n| n == *name)) {
            self.tell_routers(name);
        }
        self.refresh_names();
        self.send_hosts();
    }

    pub(super) fn begin_again(&mut self, name: &str, i: usize) -> Result<Job> {
        let container = self.containers.get(name).context("it is gone")?;
        let endpoint = container.endpoints.get(i).context("it is gone")?;
        let info = &endpoint.info;
        let mut job = Job {
            spec: EndpointSpec {
                network: info.network.clone(),
                kind: info.kind,
                aliases: info.aliases.clone(),
                gw_priority: info.gw_priority,
                vlan: (info.vlan != 0).then_some(info.vlan),
                ..EndpointSpec::default()
            },
            interface: info.interface.clone(),
            taken: Taken {
                addresses: info.addresses.clone(),
                prefixes: endpoint.prefixes.clone(),
                mac: info.mac,
            },
            default: info.default_route,
            source_table: endpoint.source_table,
            task: None,
            helper: None,
            made: None,
        };
        let helper = Helper::spawn()?;
        helper.begin(Some(container.place.door()?.as_fd()), &self.task(&job)?)?;
        job.helper = Some(helper);
        Ok(job)
    }

    pub(super) fn finish_again(&mut self, name: &str, i: usize, job: &mut Job, until: Instant) -> Result<()> {
        let fd = loop {
            let mut helper = job.helper.take().context("no helper")?;
            match helper.port() {
                Ok((_, fd)) => break fd,
                // What the process before had may take a moment to go.
                Err(e) if Instant::now() < until => {
                    tracing::debug!("{name}: {e:#}; once more");
                    std::thread::sleep(Duration::from_millis(10));
                    drop(helper);
                    let helper = Helper::spawn()?;
                    let place = &self.containers.get(name).context("it is gone")?.place;
                    helper.begin(Some(place.door()?.as_fd()), &self.task(job)?)?;
                    job.helper = Some(helper);
                }
                Err(e) => return Err(e),
            }
        };
        let place = self.containers.get(name).context("it is gone")?.place.clone();
        let mut attaching = Attaching::new(name.to_owned(), place, Some(job.spec.network.clone()));
        attaching.jobs.push(Job {
            made: Some(fd),
            spec: job.spec.clone(),
            interface: job.interface.clone(),
            taken: job.taken.clone(),
            default: job.default,
            source_table: job.source_table,
            task: None,
            helper: None,
        });
        let mut endpoints = Vec::new();
        self.finish(&mut attaching, &mut endpoints).map_err(|e| e.error)?;
        if let (Some(new), Some(old)) = (
            endpoints.pop(),
            self.containers.get_mut(name).and_then(|c| c.endpoints.get_mut(i)),
        ) {
            *old = new;
        }
        Ok(())
    }
}
