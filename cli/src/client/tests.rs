use std::path::Path;
use std::thread;

use super::*;
use crate::api::samples;
use crate::http::{Response, serve};

impl Front {
    /// The front of the private network of that name whose socket is in `dir`.
    pub(crate) fn at(dir: &Path, network: &str) -> Self {
        Self {
            whose: Whose::Private(network.to_owned()),
            path: socket_path(dir, network).unwrap(),
        }
    }
}

/// A front that answers every call the same, `connections` times.
fn front(dir: &Path, network: &str, connections: usize, answer: Response) -> (Front, thread::JoinHandle<()>) {
    let (listener, path) = control::listen(dir, network).unwrap();
    let thread = thread::spawn(move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            serve(&stream, |_| answer.clone()).unwrap();
        }
    });
    let front = Front::at(dir, network);
    assert_eq!(front.path, path);
    (front, thread)
}

/// A container that is on these networks.
fn info(name: &str, networks: &[&str]) -> ContainerInfo {
    let endpoint = |network: &&str| samples::endpoint(name, network, 1, "10.0.2.2");
    ContainerInfo {
        name: name.to_owned(),
        endpoints: networks.iter().map(endpoint).collect(),
        ..samples::container()
    }
}

#[test]
fn answers_are_put_together_and_stale_sockets_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (a, a_thread) = front(dir.path(), "a", 1, Response::json(&[info("web", &["a"])]));
    let (b, b_thread) = front(dir.path(), "b", 1, Response::json(&[info("db", &["b"])]));
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
fn a_call_answered_with_text() {
    let dir = tempfile::tempdir().unwrap();
    let text = Response {
        status: 200,
        body: b"up 1\n".to_vec(),
        ..Response::empty()
    };
    let (a, a_thread) = front(dir.path(), "a", 1, text);
    assert_eq!(a.ask_text(&Call::Metrics).unwrap(), "up 1\n");
    let (b, b_thread) = front(dir.path(), "b", 1, Response::error(404, "nothing is counted"));
    assert_eq!(
        b.ask_text(&Call::Metrics).unwrap_err().to_string(),
        "nothing is counted"
    );
    for thread in [a_thread, b_thread] {
        thread.join().unwrap();
    }
}

#[test]
fn what_is_missing_is_said_in_the_fronts_words() {
    let dir = tempfile::tempdir().unwrap();
    let (a, thread) = front(dir.path(), "a", 2, Response::error(404, "there is no such link"));
    let call = Call::Unlink {
        client: "web".into(),
        server: "db".into(),
    };
    assert_eq!(
        a.ask::<()>(&call).unwrap_err().to_string(),
        "there is no such link"
    );
    assert!(matches!(a.try_ask::<()>(&call).unwrap(), Asked::Missing(_)));
    thread.join().unwrap();
}

#[test]
fn a_container_is_found_by_name() {
    let front = |network: &str| Front {
        whose: Whose::Private(network.to_owned()),
        path: PathBuf::new(),
    };
    let daemon = Front {
        whose: Whose::Daemon,
        path: PathBuf::new(),
    };
    let answers = || {
        vec![
            (
                daemon.clone(),
                vec![info("web", &["shop", "back"]), info("log", &["back"])],
            ),
            (front("a"), vec![info("web", &["a"]), info("db", &["a"])]),
        ]
    };
    let (found, container) = pick("db", None, answers()).unwrap();
    assert_eq!((found, container.name.as_str()), (front("a"), "db"));
    let whose = |list: Vec<Front>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        whose(holders("web", None, answers()).unwrap()),
        ["the daemon", "network a"]
    );
    assert_eq!(
        whose(holders("web", Some("back"), answers()).unwrap()),
        ["the daemon"]
    );
    assert_eq!(whose(holders("db", None, answers()).unwrap()), ["network a"]);
    for (name, network) in [("cache", None), ("log", Some("shop"))] {
        let refused = [
            holders(name, network, answers()).unwrap_err(),
            pick(name, network, answers()).unwrap_err(),
        ];
        for e in refused {
            assert!(
                e.to_string().contains(&format!("no container named {name}")),
                "{e}"
            );
        }
    }
    let e = pick("web", None, answers()).unwrap_err().to_string();
    assert!(e.contains("shop, a") && e.contains("--network"), "{e}");
    let (found, _) = pick("web", Some("back"), answers()).unwrap();
    assert_eq!(found, daemon);
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
    let ending = Front::at(dir.path(), "a");
    assert_eq!(ending.path, path);
    assert!(
        merge::<Vec<ContainerInfo>>(vec![ending], false, &Call::Containers)
            .unwrap()
            .is_empty()
    );
    thread.join().unwrap();
}
