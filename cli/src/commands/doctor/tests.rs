use std::io;

use super::host::{
    Tun, judge_family, judge_low_ports, judge_open_files, judge_ping, judge_resolvers, judge_tun,
};
use super::kernel::{judge_fallbacks, judge_version, optional};
use super::trial::{Outcome, Report, count, judge};
use super::*;

/// Level, what was found, and the remedy must hold these words.
fn is(finding: &Finding, level: Level, what: &str, remedy: &str) {
    assert_eq!(finding.level, level, "{finding:?}");
    assert!(finding.what.contains(what), "{finding:?}");
    assert!(
        finding.remedy.as_deref().unwrap_or_default().contains(remedy),
        "{finding:?}"
    );
    assert_eq!(finding.remedy.is_none(), level == Level::Ok, "{finding:?}");
    assert!(!finding.what.contains('\n'), "{finding:?}");
}

#[test]
fn the_tun_device() {
    let tun = |device: io::Result<bool>, accessible, loaded| {
        judge_tun(&Tun {
            device,
            accessible,
            loaded,
        })
    };
    let (finding, may_open) = tun(Err(io::ErrorKind::NotFound.into()), false, false);
    is(&finding, Level::Failure, "there is no", "modprobe tun");
    assert!(!may_open);
    is(
        &tun(Ok(false), true, true).0,
        Level::Failure,
        "not the TUN device",
        "mknod",
    );
    is(
        &tun(Ok(true), false, true).0,
        Level::Failure,
        "may not be opened",
        "chmod 666",
    );
    let (finding, may_open) = tun(Ok(true), true, false);
    is(&finding, Level::Warning, "not loaded", "modprobe tun");
    assert!(!may_open, "opening it would load the module");
    let (finding, may_open) = tun(Ok(true), true, true);
    is(&finding, Level::Ok, "may be opened", "");
    assert!(may_open);
}

#[test]
fn namespaces_and_ids() {
    let refused = |errno| {
        judge(
            &Outcome::Refused(io::Error::from_raw_os_error(errno)),
            1000,
            false,
        )
    };
    let errno = |e: rustix::io::Errno| refused(e.raw_os_error());
    is(
        &errno(rustix::io::Errno::PERM)[0],
        Level::Failure,
        "cannot be made",
        "unprivileged_userns_clone",
    );
    is(
        &errno(rustix::io::Errno::NOSPC)[0],
        Level::Failure,
        "cannot be made",
        "max_user_namespaces",
    );
    is(
        &errno(rustix::io::Errno::INVAL)[0],
        Level::Failure,
        "cannot be made",
        "CONFIG_USER_NS",
    );
    let failed = judge(&Outcome::Failed("no map".into()), 1000, false);
    is(&failed[0], Level::Failure, "no map", "apparmor");

    let done = |ids, report, no_tools| judge(&Outcome::Done { ids, report }, 1000, no_tools);
    let whole = Report {
        error: None,
        vnet_header: true,
        tso: true,
        uso: true,
    };
    let all = done(65_537, Some(whole.clone()), false);
    assert!(all.iter().all(|f| f.level == Level::Ok), "{all:?}");
    assert_eq!(all.len(), 5);
    is(
        &done(1, None, false)[1],
        Level::Warning,
        "nginx",
        "1000:100000:65536",
    );
    is(
        &done(1, None, true)[1],
        Level::Warning,
        "nginx",
        "apt install uidmap",
    );
    let none = Report {
        error: Some("not permitted".into()),
        ..Report::default()
    };
    is(
        &done(2, Some(none), false)[2],
        Level::Failure,
        "not permitted",
        "policy",
    );
    let old = Report { uso: false, ..whole };
    is(
        &done(2, Some(old), false)[4],
        Level::Warning,
        "UDP super-frames",
        "Linux 6.2",
    );
    assert_eq!(done(2, None, false).len(), 2);
}

#[test]
fn ids_are_counted_over_all_lines() {
    assert_eq!(
        count("         0       1000          1\n         1     100000      65536\n"),
        65_537
    );
    assert_eq!(count("0 0 4294967295\n"), 4_294_967_295);
    assert_eq!(count(""), 0);
}

#[test]
fn ping_ports_and_files() {
    is(
        &judge_ping(true, false, "0\t2147483647"),
        Level::Ok,
        "0 2147483647",
        "",
    );
    is(&judge_ping(false, true, "1\t0"), Level::Ok, "raw", "");
    is(
        &judge_ping(false, false, "1\t0"),
        Level::Warning,
        "1 0",
        "ping_group_range='0 2147483647'",
    );
    is(&judge_low_ports(1024, true), Level::Ok, "every host port", "");
    is(&judge_low_ports(0, false), Level::Ok, "every host port", "");
    is(&judge_low_ports(80, false), Level::Ok, "from 80", "");
    is(
        &judge_low_ports(1024, false),
        Level::Warning,
        "from 1024",
        "ip_unprivileged_port_start=80",
    );
    is(
        &judge_open_files(Some(1024), Some(524_288)),
        Level::Ok,
        "1024, and is raised to 524288",
        "",
    );
    is(&judge_open_files(Some(1024), None), Level::Ok, "unlimited", "");
    is(
        &judge_open_files(Some(1024), Some(4096)),
        Level::Warning,
        "4096",
        "LimitNOFILE",
    );
}

#[test]
fn routes_and_resolvers() {
    is(
        &judge_family("ipv6", "IPv6", Ok(true), None),
        Level::Ok,
        "IPv6 default route",
        "",
    );
    is(
        &judge_family("ipv6", "IPv6", Ok(false), Some("--no-ipv6")),
        Level::Warning,
        "no IPv6 default",
        "--no-ipv6",
    );
    let error = Err(io::ErrorKind::Unsupported.into());
    is(
        &judge_family("ipv6", "IPv6", error, Some("--no-ipv6")),
        Level::Warning,
        "no IPv6:",
        "enable IPv6",
    );
    let conf = |text: &str| judge_resolvers(Ok(text.to_owned()));
    is(
        &conf("nameserver 127.0.0.53\nnameserver fe80::1%eth0 # x\n"),
        Level::Ok,
        "127.0.0.53, fe80::1%eth0",
        "",
    );
    is(
        &conf("# nameserver 1.1.1.1\nsearch example.org\nnameserver\nnameserver x\n"),
        Level::Warning,
        "no server",
        "--dns",
    );
    is(
        &judge_resolvers(Err("not found".into())),
        Level::Warning,
        "not found",
        "--dns",
    );
}

#[test]
fn kernels_and_their_features() {
    is(&judge_version("6.1.0-13-amd64"), Level::Ok, "6.1.0-13-amd64", "");
    is(&judge_version("5.10.1"), Level::Ok, "5.10.1", "");
    is(&judge_version("4.19.0"), Level::Warning, "4.19.0", "update");
    is(&judge_version("strange"), Level::Ok, "strange", "");
    is(
        &optional("x", false, "SO_X", "Linux 9", "slow"),
        Level::Warning,
        "lacks SO_X: slow",
        "Linux 9",
    );
    assert!(judge_fallbacks("").is_none());
    is(
        &judge_fallbacks("uso,tso").unwrap(),
        Level::Warning,
        "tso, uso",
        "unset",
    );
    is(
        &judge_fallbacks("nonsense").unwrap(),
        Level::Warning,
        "nonsense",
        "unset",
    );
}

#[test]
fn the_report() {
    let findings = vec![
        Finding::ok("kernel", "Linux 6.1"),
        Finding::warning("low ports", "only from 1024", "publish a higher one"),
    ];
    assert_eq!(
        render(&findings),
        "\
ok       kernel     Linux 6.1
warning  low ports  only from 1024
                    -> publish a higher one

`pontoon run` works here; warnings: 1.
"
    );
    let failures = [findings, vec![Finding::failure("tun device", "none", "get one")]].concat();
    assert!(render(&failures).ends_with("\n`pontoon run` cannot work here; failures: 1.\n"));
    assert_eq!(
        output::json(&failures[1..2]).unwrap(),
        r#"[
  {
    "check": "low ports",
    "level": "warning",
    "what": "only from 1024",
    "remedy": "publish a higher one"
  }
]
"#
    );
}
