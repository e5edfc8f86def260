use std::path::Path;
use std::thread;

use super::*;
use crate::http::{Response, serve};

/// A front that answers every call the same, `connections` times.
fn front(
    dir: &Path,
    network: &str,
    connections: usize,
    answer: Response,
) -> (Endpoint, thread::JoinHandle<()>) {
    let (listener, path) = control::listen(dir, network).unwrap();
    let thread = thread::spawn(move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            serve(&stream, |_| answer.clone()).unwrap();
        }
    });
    (
        Endpoint {
            network: network.to_owned(),
            path,
        },
        thread,
    )
}

fn info(network: &str, name: &str) -> ContainerInfo {
    ContainerInfo {
        name: name.to_owned(),
        network: network.to_owned(),
        pid: 1,
        port: 1,
        mac: pontoon_switch::MacAddr([2, 0, 0, 0, 0, 1]),
        addresses: vec![],
        published: vec![],
        since: 0,
    }
}

#[test]
fn answers_are_put_together_and_stale_sockets_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (a, a_thread) = front(dir.path(), "a", 1, Response::json(&[info("a", "web")]));
    let (b, b_thread) = front(dir.path(), "b", 1, Response::json(&[info("b", "db")]));
    let (stale, stale_thread) = front(dir.path(), "stale", 0, Response::empty());
    stale_thread.join().unwrap();
    let (broken, broken_thread) = front(dir.path(), "broken", 2, Response::error(500, "the sky fell"));
    let all = vec![a, b, stale.clone(), broken.clone()];
    let answers = merge::<Vec<ContainerInfo>>(all, false, &Call::Containers).unwrap();
    let names: Vec<&str> = answers
        .iter()
        .flat_map(|(_, list)| list)
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(names, ["web", "db"]);
    let only = merge::<Vec<ContainerInfo>>(vec![broken], false, &Call::Containers).unwrap_err();
    assert_eq!(only.to_string(), "the sky fell");
    for thread in [a_thread, b_thread, broken_thread] {
        thread.join().unwrap();
    }
    assert!(!stale.path.exists(), "a stale socket is removed");
    let gone = merge::<Vec<ContainerInfo>>(vec![stale.clone()], true, &Call::Containers).unwrap_err();
    assert!(
        gone.to_string().contains("no network named stale is running"),
        "{gone}"
    );
    assert!(
        merge::<Vec<ContainerInfo>>(vec![stale], false, &Call::Containers)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_call_without_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (a, thread) = front(dir.path(), "a", 1, Response::empty());
    a.ask::<()>(&Call::Detach {
        container: "web".into(),
    })
    .unwrap();
    thread.join().unwrap();
}

#[test]
fn a_container_is_found_by_name() {
    let at = |network: &str, names: &[&str]| {
        let endpoint = Endpoint {
            network: network.to_owned(),
            path: PathBuf::new(),
        };
        (
            endpoint,
            names.iter().map(|n| info(network, n)).collect::<Vec<_>>(),
        )
    };
    let answers = || vec![at("a", &["web", "db"]), at("b", &["web"])];
    let (endpoint, container) = pick("db", answers()).unwrap();
    assert_eq!((endpoint.network.as_str(), container.name.as_str()), ("a", "db"));
    let names = |list: Vec<Endpoint>| list.into_iter().map(|e| e.network).collect::<Vec<_>>();
    assert_eq!(names(holders("web", answers()).unwrap()), ["a", "b"]);
    assert_eq!(names(holders("db", answers()).unwrap()), ["a"]);
    assert!(
        holders("cache", answers())
            .unwrap_err()
            .to_string()
            .contains("no container named cache")
    );
    let e = pick("web", answers()).unwrap_err().to_string();
    assert!(e.contains("a, b") && e.contains("--network"), "{e}");
    let e = pick("cache", answers()).unwrap_err().to_string();
    assert!(e.contains("no container named cache"), "{e}");
}

#[test]
fn a_network_that_ends_while_it_is_asked_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, path) = control::listen(dir.path(), "a").unwrap();
    let thread = thread::spawn(move || {
        // Taken, and closed without an answer; the socket goes a little later.
        drop(listener.accept().unwrap());
        thread::sleep(Duration::from_millis(5));
    });
    let ending = Endpoint {
        network: "a".to_owned(),
        path,
    };
    assert!(
        merge::<Vec<ContainerInfo>>(vec![ending], false, &Call::Containers)
            .unwrap()
            .is_empty()
    );
    thread.join().unwrap();
}
