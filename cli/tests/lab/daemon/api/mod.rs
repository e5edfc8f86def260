//! Every call of `docs/openapi.json`, asked by `curl`: what is answered is what is described, errors as well.

mod errors;

use std::cell::RefCell;
use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Daemon, Who, World, wait_for};
use serde_json::{Value, json};

use super::socket;
use crate::openapi::Api;

/// Asks the daemon, and judges every question and answer by the description.
struct Asker<'w> {
    world: &'w World,
    who: Who,
    api: Api,
    /// What was granted: methods and targets.
    granted: RefCell<Vec<(String, String)>>,
    /// What was to be refused otherwise.
    wrong: RefCell<Vec<String>>,
}

impl<'w> Asker<'w> {
    fn new(world: &'w World, who: Who) -> Self {
        Self {
            world,
            who,
            api: Api::of_repository(),
            granted: RefCell::default(),
            wrong: RefCell::default(),
        }
    }

    /// Status and body as they came.
    fn raw(&self, method: &str, target: &str, body: Option<&str>) -> (u16, String) {
        let url = format!("http://pontoon{target}");
        let done = self
            .world
            .host()
            .cmd(["curl", "-sS", "-m10", "-w", "\n%{http_code}", "-X", method])
            .args([
                "--unix-socket",
                &socket(self.who),
                "-H",
                "Content-Type: application/json",
            ])
            .args(body.iter().flat_map(|b| ["--data-binary", b]))
            .args([url])
            .who(self.who)
            .run()
            .ok();
        let (body, status) = done.rsplit_once('\n').expect("a status");
        (status.parse().expect("a status"), body.to_owned())
    }

    fn judged(&self, method: &str, target: &str, body: Option<&str>) -> (u16, Value) {
        let (status, answer) = self.raw(method, target, body);
        if let Err(e) = self.api.check_answer(method, target, status, answer.as_bytes()) {
            panic!("{method} {target} {body:?} is answered with {status} {answer}: {e}");
        }
        if (200..300).contains(&status) {
            self.granted
                .borrow_mut()
                .push((method.to_owned(), target.to_owned()));
        }
        (
            status,
            serde_json::from_str(&answer).unwrap_or(Value::String(answer)),
        )
    }

    /// Asks for what is to be granted.
    fn ask(&self, method: &str, target: &str, body: &Value) -> Value {
        let body = (!body.is_null()).then(|| body.to_string());
        if let Some(body) = &body {
            let judged = self.api.check_request(method, target, body.as_bytes());
            judged.unwrap_or_else(|e| panic!("{method} {target}: {body} is not described: {e}"));
        }
        let (status, answer) = self.judged(method, target, body.as_deref());
        let wanted = match (method, target) {
            ("POST", _) => 201,
            ("DELETE", t) if t == "/v1/networks" || t.ends_with("/ports") || t.starts_with("/v1/flows") => {
                200
            }
            ("DELETE", _) => 204,
            _ => 200,
        };
        assert_eq!(status, wanted, "{method} {target} {body:?}: {answer}");
        answer
    }

    fn get(&self, target: &str) -> Value {
        self.ask("GET", target, &Value::Null)
    }

    fn post(&self, target: &str, body: Value) -> Value {
        self.ask("POST", target, &body)
    }

    fn delete(&self, target: &str) -> Value {
        self.ask("DELETE", target, &Value::Null)
    }

    /// Asks for what cannot be granted: the status, and a word of the reason. [`Asker::wrong`] is to be empty in the end.
    fn refused(&self, method: &str, target: &str, body: &str, status: u16, says: &str) {
        let (got, answer) = self.judged(method, target, (!body.is_empty()).then_some(body));
        let why = answer["error"].as_str().unwrap_or_default();
        if got != status || !why.contains(says) {
            let wrong = format!("{method} {target} {body}: {got} {answer}, not {status} {says}");
            self.wrong.borrow_mut().push(wrong);
        }
    }
}

/// Every operation of the description, as `(METHOD, path template)`.
fn operations() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let text = std::fs::read_to_string(path).expect("the description");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let of_path = |(path, methods): (&String, &Value)| {
        let methods: Vec<String> = methods.as_object().expect("methods").keys().cloned().collect();
        let path = path.clone();
        methods
            .into_iter()
            .map(move |m| (m.to_uppercase(), path.clone()))
            .collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

/// Whether a target is one of those that a template stands for.
fn fits(template: &str, target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    template.split('/').count() == path.split('/').count()
        && template
            .split('/')
            .zip(path.split('/'))
            .all(|(t, p)| t == p || t.starts_with('{'))
}

each_user! {
    fn every_call_is_answered_as_described(world, who) {
        let _server = world.server().nginx(80);
        let _daemon = Daemon::start(world, who);
        let a = Asker::new(world, who);
        let bares: Vec<Bare<'_>> = (0..2).map(|_| Bare::start(world, who)).collect();
        assert_eq!(a.get("/v1/version")["daemon"], true);
        for empty in ["networks", "containers", "links", "rules", "wires", "flows", "fdb", "stats"] {
            assert_eq!(a.get(&format!("/v1/{empty}")), json!([]), "{empty}");
        }

        let shop = a.post("/v1/networks", json!({
            "name": "shop", "subnets": ["10.30.0.0/24", "fd30::/64"], "gateway": {"at": ["10.30.0.9"]}, "ip_ranges": ["10.30.0.128/25"],
            "reserved": ["10.30.0.200"], "mtu": 1400, "icc": false, "dns": ["198.51.100.10"], "dns_search": ["shop.test"],
            "publish_address": "192.0.2.1", "options": {"max-flows": "1000"},
        }));
        assert_eq!((&shop["mtu"], &shop["icc"], &shop["subnets"][0]["gateway"]), (&1400.into(), &false.into(), &"10.30.0.9".into()), "{shop}");
        a.post("/v1/networks", json!({"name": "plain"}));
        a.post("/v1/networks", json!({"name": "none-of-it", "gateway": "none", "ipv6": true, "internal": true}));
        assert_eq!(a.get("/v1/networks/shop"), shop);
        assert_eq!(a.get("/v1/networks").as_array().map(Vec::len), Some(3));

        let attach = |name: &str, pid: u32, more: Value| {
            let mut request = json!({"pid": pid, "name": name});
            request.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            a.post("/v1/containers", request)
        };
        let db = attach("db", bares[0].pid, json!({
            "endpoints": [{"network": "shop", "ip": "10.30.0.77", "mac": "02:00:00:00:00:77", "aliases": ["database"]}],
            "expose": ["80", "5000-5001/udp"], "add_hosts": [["extra.test", "10.9.9.9"]],
        }));
        assert_eq!(db["endpoints"][0]["addresses"][0], "10.30.0.77");
        let web = attach("web", bares[1].pid, json!({
            "endpoints": [{"network": "shop", "kind": "veth", "gw_priority": 5}], "publish": ["8080:80"], "links": [{"server": "db", "alias": "store"}],
        }));
        assert_eq!((&web["endpoints"][0]["kind"], &web["published"][0]["host_ip"]), (&"veth".into(), &"192.0.2.1".into()), "{web}");
        assert_eq!(a.get("/v1/containers/web"), web);
        assert_eq!(a.get("/v1/containers").as_array().map(Vec::len), Some(2));
        let both = a.post("/v1/networks/plain/endpoints", json!({"container": "web", "endpoint": {"network": "plain", "aliases": ["www"]}}));
        assert_eq!(both["endpoints"].as_array().map(Vec::len), Some(2), "{both}");
        assert_eq!(a.get("/v1/networks/plain")["endpoints"][0]["container"], "web");

        let ports = a.post("/v1/containers/web/ports", json!({"specs": ["127.0.0.1:9000:90", "81/udp"]}));
        assert_eq!((&ports[0]["host_port"], &ports[0]["host_ip"]), (&9000.into(), &"127.0.0.1".into()), "{ports}");
        let gone = a.ask("DELETE", "/v1/containers/web/ports", &json!({"specs": ["127.0.0.1:9000:90"]}));
        assert_eq!(gone.as_array().map(Vec::len), Some(1), "{gone}");

        let links = a.get("/v1/links");
        assert_eq!((&links[0]["alias"], &links[0]["ports"]), (&"store".into(), &json!(["80/tcp", "5000-5001/udp"])), "{links}");
        a.post("/v1/links", json!({"client": "db", "server": "web", "ports": ["80"]}));
        let rule = a.post("/v1/rules", json!({"action": "deny", "container": "web", "port": 80, "protocol": "tcp", "from": "203.0.113.0/24"}));
        let other = a.post("/v1/rules", json!({"action": "allow", "container": "to-come", "port": 80, "protocol": "udp", "from": "::/0"}));
        assert_eq!(a.get("/v1/rules"), json!([rule, other]));
        let wire = a.post("/v1/wires", json!({"a": "web", "b": "db"}));
        assert_eq!(a.get("/v1/wires"), json!([wire]));

        bares[1].run(["ping", "-n", "-c1", "-W9", wire["b"]["address"].as_str().expect("an address")]);
        bares[1].run(["curl", "-sS", "-m5", "-o", "/dev/null", "http://198.51.100.10/"]);
        bares[1].run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
        for target in ["/v1/flows", "/v1/flows?network=shop", "/v1/flows?container=web", "/v1/flows?network=shop&container=web"] {
            let flows = a.get(target);
            assert!(flows.as_array().is_some_and(|f| !f.is_empty()), "{target}: {flows}");
        }
        assert_eq!(a.get("/v1/flows?container=db"), json!([]));
        assert!(a.delete("/v1/flows?container=web")["flows"].as_u64() > Some(0));
        assert_eq!(a.delete("/v1/flows")["flows"], 0);
        let fdb = a.get("/v1/fdb?network=shop");
        assert!(fdb.as_array().expect("rows").iter().any(|r| r["mac"] == "02:00:00:00:00:77" && r["port_name"] == "db"), "{fdb}");
        assert!(a.get("/v1/fdb").as_array().map(Vec::len) > fdb.as_array().map(Vec::len));
        assert_eq!(a.get("/v1/stats").as_array().map(Vec::len), Some(3));
        assert_eq!(a.get("/v1/stats?network=shop")[0]["ports"].as_array().map(Vec::len), Some(2));
        assert!(a.get("/metrics").as_str().is_some_and(|m| m.contains("pontoon_containers 2")));

        let route = a.post("/v1/networks/shop/routes", json!({"to": "10.99.0.0/24", "via": "10.30.0.77"}));
        assert_eq!((&route["to"], &route["via"]), (&"10.99.0.0/24".into(), &"10.30.0.77".into()), "{route}");
        assert_eq!(a.get("/v1/networks/shop/routes"), json!([route]));
        a.delete("/v1/networks/shop/routes/10.99.0.0%2F24");
        assert_eq!(a.get("/v1/networks/shop/routes"), json!([]));

        errors::ask(&a, bares[0].pid);
        let wrong = a.wrong.take();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));

        a.delete("/v1/wires/db/web");
        a.delete("/v1/links/web/db");
        a.delete("/v1/rules/1");
        a.refused("DELETE", "/v1/rules/1", "", 404, "no rule 1");
        a.delete("/v1/networks/plain/endpoints/web");
        a.delete("/v1/containers/web");
        bares[1].run(["sh", "-c", "ip -o link | wc -l | grep -x 1"]);
        assert_eq!(a.delete("/v1/networks"), json!(["none-of-it", "plain"]));
        drop(bares);
        wait_for("db's end", Duration::from_secs(5), || (a.get("/v1/containers") == json!([])).then_some(()));
        a.delete("/v1/networks/shop");
        assert_eq!(a.get("/v1/networks"), json!([]));
        let granted = a.granted.borrow();
        for (method, template) in operations() {
            let asked = granted.iter().any(|(m, t)| *m == method && fits(&template, t));
            assert!(asked, "{method} {template} was never asked for");
        }
    }
}
