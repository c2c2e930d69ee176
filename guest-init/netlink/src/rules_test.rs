use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;

use super::*;
use crate::attribute;

fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | 1 << 15, &attributes.concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn expression(name: &[u8], data: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[attribute(1, name), nested(2, data)])
}

/// That of a packet is `protocol`, as iptables asks for it.
fn protocol_is(protocol: u8) -> [Vec<u8>; 2] {
    let load = [number(1, 8), number(2, 1), number(3, 9), number(4, 1)];
    let equal = [
        number(1, 8),
        number(2, 0),
        nested(3, &[attribute(1, &[protocol])]),
    ];
    [
        expression(b"payload\0", &load),
        expression(b"cmp\0", &equal),
    ]
}

/// A rule of a table as the kernel tells it, with its handle and position.
fn rule(family: i32, table: &[u8], expressions: &[Vec<u8>]) -> Vec<u8> {
    let header = vec![family as u8, 0, 0, 7];
    let attributes = [
        attribute(1, table),
        attribute(2, b"INPUT\0"),
        attribute(3, &[0, 0, 0, 0, 0, 0, 0, 4]),
        attribute(6, &[0, 0, 0, 0, 0, 0, 0, 3]),
        nested(4, expressions),
        attribute(7, b"odd"),
    ];
    [header, attributes.concat()].concat()
}

fn parse_rule(payload: &[u8]) -> Option<PacketRule> {
    parse(&KINDS[2], payload).unwrap()
}

fn parts(rule: &PacketRule) -> Vec<(u16, &[u8])> {
    attributes(&rule.attributes).unwrap()
}

#[test]
fn what_the_kernel_makes_is_left_out() {
    let native = rule(NFPROTO_IPV4, b"nat\0", &protocol_is(6));
    let parsed = parse_rule(&native).unwrap();
    assert_eq!((parsed.message, parsed.family), (6, 2));
    let kinds: Vec<_> = parts(&parsed).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [1, 2, 4, 7]);
    assert_eq!(value(&parts(&parsed), 7), b"odd");
    assert_eq!(parsed.attributes.len() % 4, 0);
    // NFPROTO_BRIDGE and NFPROTO_ARP.
    for family in [7, 3] {
        assert_eq!(parse_rule(&rule(family, b"nat\0", &[])), None);
    }
    for cut in 0..4 {
        assert!(parse(&KINDS[2], &native[..cut]).is_err());
    }
}

#[test]
fn extensions_of_iptables_are_told_the_protocol() {
    let multiport = expression(b"match\0", &[attribute(1, b"multiport\0")]);
    let protocol = |expressions: &[&[Vec<u8>]], family| {
        let parsed = parse_rule(&rule(family, b"filter\0", &expressions.concat())).unwrap();
        let compat = attributes(value(&parts(&parsed), 5)).unwrap();
        let number = value(&compat, 1);
        (!compat.is_empty()).then(|| (number.to_vec(), value(&compat, 2).to_vec()))
    };
    let one = std::slice::from_ref(&multiport);
    let udp = Some((vec![0, 0, 0, 17], vec![0; 4]));
    assert_eq!(protocol(&[&protocol_is(17), one], NFPROTO_IPV4), udp);
    assert_eq!(protocol(&[one], NFPROTO_IPV4), None);
    // Offset 9 is no protocol of IPv6.
    assert_eq!(protocol(&[&protocol_is(17), one], NFPROTO_IPV6), None);
    let [_, compare] = protocol_is(17);
    let load = expression(b"meta\0", &[number(1, 8), number(2, 16)]);
    let meta = [load, compare.clone()];
    assert_eq!(protocol(&[&meta, one], NFPROTO_IPV6), udp);
    assert_eq!(protocol(&[&meta[..1], one, &meta[1..]], NFPROTO_IPV6), None);
}

#[test]
fn a_table_with_sets_stays() {
    let lookup = expression(b"lookup\0", &[attribute(1, b"set\0")]);
    let rules = |family, table: &[u8], expressions: &[Vec<u8>]| {
        parse_rule(&rule(family, table, expressions)).unwrap()
    };
    let kept = [
        rules(NFPROTO_IPV4, b"nat\0", &protocol_is(6)),
        rules(NFPROTO_IPV6, b"filter\0", &[]),
    ];
    let all = vec![
        rules(NFPROTO_IPV4, b"filter\0", &[]),
        kept[0].clone(),
        rules(NFPROTO_IPV4, b"filter\0", &[lookup]),
        kept[1].clone(),
    ];
    assert_eq!(movable(all).unwrap(), kept);
}

proptest! {
    #[test]
    fn damaged_messages_do_no_harm(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()
    ) {
        let multiport = expression(b"match\0", &[attribute(1, b"multiport\0")]);
        let [load, compare] = protocol_is(6);
        let mut payload = rule(NFPROTO_IPV4, b"nat\0", &[load, compare, multiport]);
        let at = at.index(payload.len());
        payload[at] = byte;
        payload.truncate(cut.index(payload.len() * 2));
        for kind in &KINDS {
            let _ = parse(kind, &payload).map(|rule| movable(rule.into_iter().collect()));
        }
    }

    #[test]
    fn no_bytes_do_harm(payload in prop::collection::vec(any::<u8>(), 0..100)) {
        for kind in &KINDS {
            let _ = parse(kind, &payload).map(|rule| movable(rule.into_iter().collect()));
        }
    }
}

/// Docker's rules for its resolver, Swarm's for a published port, and what else iptables knows.
const RULES: &str = "\
*filter
:INPUT DROP [0:0]
-A INPUT -d 10.0.0.5/32 -p tcp -m tcp --dport 5000 -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT
-A INPUT -d 10.0.0.5/32 -p udp -m multiport --dports 53,5353 -m comment --comment names -j REJECT
COMMIT
*nat
:OUTPUT ACCEPT [0:0]
:PREROUTING ACCEPT [0:0]
:DOCKER_OUTPUT - [0:0]
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A PREROUTING -d 10.0.0.5/32 -p tcp -m tcp --dport 18070 -j REDIRECT --to-ports 5000
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:35575
COMMIT
";

/// Calls a program of iptables; its output without comments, or why there is none.
fn iptables(program: &str, input: &str) -> std::result::Result<String, String> {
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        return Err(format!("{program}: {}", output.status));
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

/// Runs `test` in a new network namespace; None, and why on stderr, if there cannot be one.
fn in_namespace<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let run = || match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => Some(test()),
        Err(error) => {
            eprintln!("skipped: no network namespace: {error}");
            None
        }
    };
    thread::spawn(run).join().unwrap()
}

#[test]
fn rules_are_the_same_in_another_namespace() {
    let Some(source) = in_namespace(|| {
        let empty = PacketFilter::open().unwrap().rules().unwrap_or_default();
        assert_eq!(empty, []);
        iptables("iptables-nft-restore", RULES)?;
        let text = iptables("iptables-nft-save", "")?;
        Ok((text, PacketFilter::open().unwrap().rules().unwrap()))
    }) else {
        return;
    };
    let (text, rules) = match source {
        Ok(source) => source,
        Err::<_, String>(reason) => return eprintln!("skipped: {reason}"),
    };
    assert!(text.contains("--dports 53,5353"), "{text}");
    let (expected, damaged) = (rules.clone(), rules.clone());
    let copied = in_namespace(move || {
        let mut filter = PacketFilter::open().unwrap();
        filter.add(&rules).unwrap();
        (
            iptables("iptables-nft-save", "").unwrap(),
            filter.rules().unwrap(),
        )
    });
    assert_eq!(copied, Some((text, expected)));
    // All or nothing, and the first error is the one that is told.
    in_namespace(move || {
        let mut filter = PacketFilter::open().unwrap();
        let chains = |rule: &PacketRule| i32::from(rule.message) != NFT_MSG_NEWCHAIN;
        let without: Vec<_> = damaged.into_iter().filter(chains).collect();
        let error = filter.add(&without).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOENT), "{error}");
        assert_eq!(filter.rules().unwrap(), []);
    });
}
