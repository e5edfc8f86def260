//! One measurement: a row's work through one running stack.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pontoon_fixtures::lab::{Cmd, Done, Proc, Who, World, wait_for};
use serde_json::Value;

use crate::peers::{self, Peer, Running};
use crate::process::{cpu_seconds, holdings};
use crate::results::Outcome;
use crate::rows::{IDLE, IDLE_BESIDE, Row, Way, Work};

/// Port of `lab-load serve` in the server's namespace and in containers.
pub(crate) const LOAD: u16 = 9000;
/// Another, with descriptors of its own.
pub(crate) const BEYOND: u16 = 9001;
/// Port of iperf3 wherever it serves.
const BULK: u16 = 5201;
/// What a command may take longer than its measuring.
const GRACE: u64 = 15;

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Seconds of each measurement.
    pub(crate) seconds: u32,
    /// Connections of the row `crr-steady`.
    pub(crate) steady: u32,
    /// Seconds in which idle connections may be opened.
    pub(crate) opening: u32,
    /// Seconds for which a stack is watched that has nothing to do.
    pub(crate) watch: u32,
}

/// Does a row's work. The stack was started afresh if the row asks for that.
pub(crate) fn measure(row: &Row, running: &mut Running<'_>, pace: Pace) -> Result<Outcome> {
    let s = pace.seconds;
    match row.work {
        Work::Bulk { way, streams } => bulk(running, way, streams, s),
        Work::Neighbours => neighbours(running, s),
        Work::TcpRr => rate(running, &["tcp-rr", &running.server_at(LOAD), &s.to_string()]),
        Work::UdpRr => rate(running, &["udp-rr", &running.server_at(LOAD), &s.to_string()]),
        Work::Crr { parallel, way } => crr(running, way, parallel, &s.to_string(), u64::from(s)),
        Work::Steady => steady(running, pace.steady),
        Work::Flood { size, way } => {
            let what = if way == Way::In {
                "udp-flood-in"
            } else {
                "udp-flood-out"
            };
            let args = [what, &running.server_at(LOAD), &size.to_string(), &s.to_string()];
            let (said, cpu) = load(running, &args)?;
            let kpps = figure(&said, "delivered_kpps")?;
            let mut outcome = Outcome::new(kpps);
            outcome.cpu = cpu.map(|c| c * 1e6 / (kpps * 1e3 * f64::from(s)));
            Ok(outcome)
        }
        Work::Quic { way, offloads } => {
            let to = running.server_at(LOAD);
            let seconds = s.to_string();
            let mut args = vec!["udp-gso", &to, &seconds];
            if way == Way::In {
                args.push("--in");
            }
            if !offloads {
                args.push("--plain");
            }
            let (said, cpu) = load(running, &args)?;
            let gbits = figure(&said, "gbits")?;
            let mut outcome = Outcome::new(gbits);
            outcome.cpu = cpu.map(|c| c / (gbits / 8.0 * figure(&said, "seconds").unwrap_or(f64::from(s))));
            Ok(outcome)
        }
        Work::Idle => idle(running, pace),
        Work::RrWithIdle => beside_idle(running, pace),
        Work::Resident => resident(running, pace),
        Work::Ready | Work::ReadyRun => bail!("is measured without a running stack"),
    }
}

impl<'w> Running<'w> {
    /// One address of the server.
    fn server_at(&self, port: u16) -> String {
        format!("198.19.{}.10:{port}", self.net)
    }

    /// All addresses of the server.
    fn servers_at(&self, port: u16) -> String {
        format!("198.19.{}.10-29:{port}", self.net)
    }

    /// Runs `work`, and gives what the stack's processes used of the CPU meanwhile.
    fn costs<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Option<f64>)> {
        let before = cpu_seconds(&self.pids);
        let done = work()?;
        let used = cpu_seconds(&self.pids) - before;
        Ok((done, (!self.pids.is_empty()).then_some(used)))
    }
}

/// Wants a command to succeed, and to have said JSON.
fn json(cmd: Cmd<'_>, limit: u64) -> Result<Value> {
    let done: Done = cmd.limit(limit).run();
    if done.status.is_none() {
        bail!("did not end within {limit} s");
    }
    if !done.success() {
        // iperf3 -J says it on standard output.
        let said = serde_json::from_str::<Value>(&done.text()).unwrap_or_default();
        let errors = done.errors();
        let why = said["error"]
            .as_str()
            .or(errors.lines().last())
            .unwrap_or("no word");
        bail!("{}", why.trim().to_owned());
    }
    serde_json::from_str(&done.text()).with_context(|| format!("{done}"))
}

fn figure(said: &Value, name: &str) -> Result<f64> {
    said[name]
        .as_f64()
        .with_context(|| format!("no {name} in {said}"))
}

/// `lab-load` in the container, and what it cost the stack.
fn load(running: &Running<'_>, args: &[&str]) -> Result<(Value, Option<f64>)> {
    let seconds = args
        .iter()
        .filter_map(|a| a.parse::<u64>().ok())
        .max()
        .unwrap_or(0)
        .min(60);
    running.costs(|| json(running.cmd(&["lab-load"]).args(args), seconds + GRACE))
}

fn rate(running: &Running<'_>, args: &[&str]) -> Result<Outcome> {
    let (said, cpu) = load(running, args)?;
    let mut outcome = with(
        Outcome::new(figure(&said, "per_second")?),
        &said,
        &["p50_us", "p99_us", "lost"],
    );
    outcome.cpu = each(cpu, figure(&said, "transactions")?);
    Ok(outcome)
}

/// With those of the figures called `names` that there are.
fn with(outcome: Outcome, said: &Value, names: &[&str]) -> Outcome {
    names.iter().fold(outcome, |o, name| match said[*name].as_f64() {
        Some(value) => o.with(name, value),
        None => o,
    })
}

/// Microseconds for each.
fn each(cpu: Option<f64>, count: f64) -> Option<f64> {
    cpu.map(|c| c * 1e6 / count)
}

fn bulk(running: &mut Running<'_>, way: Way, streams: u32, seconds: u32) -> Result<Outcome> {
    let (time, streams) = (seconds.to_string(), streams.to_string());
    let serve = ["iperf3", "-s", "-1", "-p", &BULK.to_string()];
    let common = ["iperf3", "-J", "-t", &time, "-P", &streams];
    // A server for each measurement: one that lost its client in the middle is of no use to the next.
    let (server, cmd) = match way {
        Way::Out | Way::In => {
            let server = running.world.server().cmd(serve).spawn();
            running.world.server().wait_tcp(BULK);
            let cmd = running
                .cmd(&common)
                .args(["-c", &format!("198.19.{}.10", running.net)])
                .args((way == Way::In).then_some("-R"));
            (server, cmd)
        }
        Way::Published => {
            let server = running.cmd(&serve).spawn();
            listening(running, &server)?;
            let to = format!("198.19.{}.1", running.net);
            let port = running.bulk_port.to_string();
            let cmd = running.world.server().cmd(common).args(["-c", &to, "-p", &port]);
            (server, cmd)
        }
    };
    let outcome = gbits(running, cmd, seconds);
    drop(server);
    outcome
}

fn neighbours(running: &mut Running<'_>, seconds: u32) -> Result<Outcome> {
    let (inside, address) = running.neighbour.clone().context("no second container")?;
    let server = peers::cmd(running.world, &inside, &["iperf3", "-s", "-1"]).spawn();
    let quiet = peers::cmd(running.world, &inside, &["ss", "-ltnH"]);
    wait_for("iperf3 to listen", Duration::from_secs(5), || {
        quiet.clone().run().text().contains(":5201").then_some(())
    });
    let cmd = running.cmd(&["iperf3", "-J", "-t", &seconds.to_string(), "-c", &address]);
    let outcome = gbits(running, cmd, seconds);
    drop(server);
    outcome
}

/// Waits until iperf3 in the container listens.
fn listening(running: &Running<'_>, _server: &Proc) -> Result<()> {
    for _ in 0..100 {
        if running.cmd(&["ss", "-ltnH"]).run().text().contains(":5201") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("iperf3 does not listen in the container")
}

fn gbits(running: &Running<'_>, cmd: Cmd<'_>, seconds: u32) -> Result<Outcome> {
    let (said, cpu) = running.costs(|| json(cmd, u64::from(seconds) + GRACE))?;
    let received = &said["end"]["sum_received"];
    let mut outcome = Outcome::new(figure(received, "bits_per_second")? / 1e9).with(
        "retransmits",
        said["end"]["sum_sent"]["retransmits"].as_f64().unwrap_or(0.0),
    );
    let gigabytes = figure(received, "bytes")? / 1e9;
    ensure!(gigabytes > 0.0, "nothing arrived");
    outcome.cpu = cpu.map(|c| c / gigabytes);
    Ok(outcome)
}

/// Starts `lab-load serve` in the container if it does not run yet.
fn serve_inside(running: &mut Running<'_>) {
    if running.server.as_mut().is_none_or(|s| s.poll().is_some()) {
        let mut server = running.cmd(&["lab-load", "serve", &LOAD.to_string()]).spawn();
        server.wait_for("listening");
        running.server = Some(server);
    }
}

fn crr(running: &mut Running<'_>, way: Way, parallel: u32, extent: &str, seconds: u64) -> Result<Outcome> {
    let parallel = parallel.to_string();
    let cmd = match way {
        Way::Out => {
            let to = running.servers_at(LOAD);
            running.cmd(&["lab-load", "tcp-crr", &to, &parallel, extent])
        }
        Way::Published => {
            serve_inside(running);
            let to = format!("198.19.{}.{}", running.net, running.published_at);
            running
                .world
                .server()
                .cmd(["lab-load", "tcp-crr", &to, &parallel, extent])
        }
        Way::In => bail!("a connection out cannot come in"),
    };
    let (said, cpu) = running.costs(|| json(cmd, seconds + GRACE))?;
    let tenths: Vec<f64> = said["tenths"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .collect();
    ensure!(tenths.len() == 10, "no tenths in {said}");
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (failed, stalled) = (figure(&said, "failed")?, figure(&said, "stalled")?);
    let outcome = Outcome::new(figure(&said, "per_second")?);
    let mut outcome = with(outcome, &said, &["p50_us", "p99_us", "failed", "stalled"])
        .with("late_over_early", mean(&tenths[7..]) / mean(&tenths[..3]));
    outcome.cpu = each(cpu, figure(&said, "transactions")?);
    if failed + stalled > 0.0 {
        let error = said["error"].as_str().unwrap_or("no error");
        outcome.note = Some(format!("{failed} failed, {stalled} stalled: {error}"));
    }
    Ok(outcome)
}

fn steady(running: &mut Running<'_>, count: u32) -> Result<Outcome> {
    let mut outcome = crr(
        running,
        Way::Out,
        16,
        &format!("{count}x"),
        10 + u64::from(count) / 500,
    )?;
    outcome = Outcome {
        value: outcome.extra["late_over_early"],
        extra: outcome.extra.clone(),
        ..outcome
    }
    .with("per_second", outcome.value)
    .with("connections", f64::from(count));
    Ok(outcome)
}

/// `lab-load idle` in the container, and what it has said so far.
struct Idle {
    proc: Proc,
    said: usize,
}

impl Idle {
    fn start(running: &Running<'_>, count: u64, to: &str, opening: u32) -> Result<(Self, Value)> {
        let mut idle = Self {
            proc: running
                .cmd(&["lab-load", "idle", &count.to_string(), to, &opening.to_string()])
                .held()
                .spawn(),
            said: 0,
        };
        let opened = idle.next(u64::from(opening) + GRACE)?;
        Ok((idle, opened))
    }

    /// What it says next.
    fn next(&mut self, seconds: u64) -> Result<Value> {
        for _ in 0..seconds * 50 {
            let all = self.proc.stdout();
            // A line is whole when its end is there.
            if let Some(line) = all
                .split_inclusive('\n')
                .nth(self.said)
                .filter(|l| l.ends_with('\n'))
            {
                self.said += 1;
                return serde_json::from_str(line).with_context(|| line.to_owned());
            }
            if let Some(status) = self.proc.poll() {
                bail!("the client ended ({status}): {}", self.proc.stderr().trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the client said nothing for {seconds} s")
    }
}

fn idle(running: &mut Running<'_>, pace: Pace) -> Result<Outcome> {
    // The code that connections run shall be in memory before.
    let _ = load(running, &["tcp-crr", &running.servers_at(LOAD), "4", "200x"]);
    std::thread::sleep(Duration::from_millis(500));
    let before = holdings(&running.pids);
    let (mut idle, opened) = Idle::start(running, IDLE, &running.servers_at(LOAD), pace.opening)?;
    let after = holdings(&running.pids);
    let count = figure(&opened, "opened")?;
    let mut outcome = Outcome::new(0.0)
        .with("opened", count)
        .with("open_seconds", figure(&opened, "seconds")?);
    if !running.pids.is_empty() && running.alive() && count > 0.0 {
        outcome = outcome
            .with(
                "bytes_each",
                (after.proportional as f64 - before.proportional as f64) / count,
            )
            .with(
                "fds_each",
                (after.descriptors as f64 - before.descriptors as f64) / count,
            );
    }
    if count < IDLE as f64 {
        let why = opened["error"].as_str().unwrap_or("too slow");
        let seconds = figure(&opened, "seconds")?;
        outcome.note = Some(format!("{count} opened in {seconds:.1} s: {why}"));
    }
    if !running.alive() {
        outcome.note = Some(format!("{count} opened, then it {}", running.last_words()));
        return Ok(outcome);
    }
    idle.proc.say("check");
    let alive = idle.next(60)?;
    outcome.value = figure(&alive, "alive")?;
    outcome = with(outcome, &alive, &["ended", "silent"]);
    if running.network.is_some() {
        outcome = beyond(running, outcome)?;
        idle.proc.say("check");
        let still = figure(&idle.next(60)?, "alive")?;
        outcome = outcome.with("alive_after_beyond", still);
    }
    Ok(outcome)
}

/// Asks Pontoon for more connections than it has descriptors for: each is to be refused at once, and counted.
fn beyond(running: &Running<'_>, outcome: Outcome) -> Result<Outcome> {
    let before = drops(running)?;
    let (_more, opened) = Idle::start(running, 1_000, &running.servers_at(BEYOND), 10)?;
    let mut after = drops(running)?;
    after.retain(|reason, n| {
        *n -= before.get(reason).unwrap_or(&0.0);
        *n > 0.0
    });
    let (failed, seconds) = (figure(&opened, "failed")?, figure(&opened, "seconds")?);
    let error = opened["error"].as_str().unwrap_or("none");
    // Clean: told so at once, not left to wait, and counted.
    let counted: f64 = after.values().sum();
    let clean = failed > 0.0 && counted >= failed && !error.contains("timed out") && seconds < 9.0;
    let mut outcome = outcome
        .with("beyond_opened", figure(&opened, "opened")?)
        .with("beyond_failed", failed)
        .with("beyond_refused", f64::from(u8::from(clean)));
    let reasons: Vec<String> = after.iter().map(|(r, n)| format!("{r} {n}")).collect();
    let note = format!(
        "beyond the limit {} more opened, {failed} failed within {seconds:.1} s ({error}), counted as: {}",
        opened["opened"],
        reasons.join(", ")
    );
    outcome.note = Some(outcome.note.map_or(note.clone(), |n| format!("{n}; {note}")));
    Ok(outcome)
}

/// What `pontoon stats` counts as dropped, at ports and at the gateway, by reason.
fn drops(running: &Running<'_>) -> Result<BTreeMap<String, f64>> {
    let network = running.network.as_deref().context("a network")?;
    let cmd = running.world.host().cmd(["pontoon", "stats", "--json", network]);
    let stats = json(cmd.who(Who::User), 10)?;
    let ports = stats[0]["ports"].as_array().into_iter().flatten();
    let mut all = BTreeMap::new();
    for by_reason in ports.map(|p| &p["drops"]).chain([&stats[0]["gateway_drops"]]) {
        for (reason, n) in by_reason.as_object().into_iter().flatten() {
            *all.entry(reason.clone()).or_default() += n.as_f64().unwrap_or(0.0);
        }
    }
    Ok(all)
}

/// Starts a stack again and again, as `how` says: see [`Work::Ready`] and [`Work::ReadyRun`].
pub(crate) fn ready(world: &World, peer: &Peer, how: &[&str]) -> Result<Outcome> {
    let mut cmd = world.host().cmd(["lab-load"]).args(how).who(Who::User);
    if peer.fallback() {
        cmd = cmd.env("PONTOON_FALLBACK", "all");
    }
    let said = json(cmd, 60)?;
    Ok(Outcome::new(figure(&said, "p50_ms")?)
        .with("min_ms", figure(&said, "min_ms")?)
        .with("max_ms", figure(&said, "max_ms")?))
}

fn beside_idle(running: &mut Running<'_>, pace: Pace) -> Result<Outcome> {
    let to = running.server_at(LOAD);
    let seconds = pace.seconds.to_string();
    let p50 = |running: &Running<'_>| figure(&load(running, &["tcp-rr", &to, &seconds])?.0, "p50_us");
    let alone = p50(running)?;
    let (_idle, opened) = Idle::start(running, IDLE_BESIDE, &running.servers_at(LOAD), pace.opening)?;
    let count = figure(&opened, "opened")?;
    if !running.alive() {
        bail!("{count} opened, then it {}", running.last_words());
    }
    let beside = p50(running)?;
    let mut outcome = Outcome::new(beside)
        .with("alone_us", alone)
        .with("ratio", beside / alone)
        .with("opened", count);
    if count < IDLE_BESIDE as f64 {
        outcome.note = Some(format!("beside {count} only"));
    }
    Ok(outcome)
}

fn resident(running: &mut Running<'_>, pace: Pace) -> Result<Outcome> {
    ensure!(!running.pids.is_empty(), "has no process");
    // What its start has left to do comes to rest.
    std::thread::sleep(Duration::from_secs(u64::from(pace.watch) / 2));
    let before = holdings(&running.pids);
    std::thread::sleep(Duration::from_secs(u64::from(pace.watch)));
    let after = holdings(&running.pids);
    Ok(Outcome::new(after.largest as f64 / 1e6)
        .with("all_pss_mb", after.proportional as f64 / 1e6)
        .with("processes", running.pids.len() as f64)
        .with("wakeups", (after.switches - before.switches) as f64)
        .with("watched_seconds", f64::from(pace.watch)))
}
