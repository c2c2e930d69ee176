use std::net::{IpAddr, Ipv4Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::exec::Agent;
use crate::{
    AccessTimes, Address, Capabilities, Device, Disk, DiskMount, FileSystem, FilterInstruction,
    Interface, MacAddress, Mount, MountFlags, Mountable, PacketRule, Plug, Process, Resolver,
    Resource, Rlimit, Root, RootDisk, Route, Start, User, WindowSize,
};

fn flags() -> impl Strategy<Value = MountFlags> {
    any::<[bool; 4]>().prop_map(|[read_only, nosuid, nodev, noexec]| MountFlags {
        read_only,
        nosuid,
        nodev,
        noexec,
    })
}

fn file_system() -> impl Strategy<Value = FileSystem> {
    let times = any::<[bool; 3]>().prop_map(|[noatime, nodiratime, strictatime]| AccessTimes {
        noatime,
        nodiratime,
        strictatime,
    });
    (".*", ".*", flags(), ".*", times).prop_map(|(fstype, source, flags, data, access_times)| {
        FileSystem {
            fstype,
            source,
            flags,
            data,
            access_times,
        }
    })
}

fn root() -> impl Strategy<Value = Root> {
    (file_system(), ".*", any::<bool>()).prop_map(|(file_system, path, read_only)| Root {
        file_system,
        path,
        read_only,
    })
}

fn mountable() -> impl Strategy<Value = Mountable> {
    prop_oneof![
        file_system().prop_map(Mountable::FileSystem),
        file_system().prop_map(Mountable::Optional),
        (".*", flags()).prop_map(|(path, flags)| Mountable::Bind { path, flags }),
    ]
}

fn mount() -> impl Strategy<Value = Mount> {
    (".*", mountable()).prop_map(|(target, what)| Mount { target, what })
}

fn device() -> impl Strategy<Value = Device> {
    (".*", any::<bool>(), any::<[u32; 5]>()).prop_map(
        |(path, block, [major, minor, mode, uid, gid])| Device {
            path,
            block,
            major,
            minor,
            mode,
            uid,
            gid,
        },
    )
}

fn disk() -> impl Strategy<Value = Disk> {
    let mount = (".*", ".*").prop_map(|(fstype, target)| DiskMount { fstype, target });
    (".*", ".*", any::<bool>(), option::of(mount)).prop_map(|(id, serial, read_only, mount)| Disk {
        id,
        serial,
        read_only,
        mount,
    })
}

pub(super) fn capabilities() -> impl Strategy<Value = Capabilities> {
    any::<[u64; 5]>().prop_map(|[bounding, effective, inheritable, permitted, ambient]| {
        Capabilities {
            bounding,
            effective,
            inheritable,
            permitted,
            ambient,
        }
    })
}

fn instruction() -> impl Strategy<Value = FilterInstruction> {
    any::<(u16, u8, u8, u32)>().prop_map(|(code, jt, jf, k)| FilterInstruction { code, jt, jf, k })
}

pub(super) fn window() -> impl Strategy<Value = WindowSize> {
    any::<(u16, u16)>().prop_map(|(rows, cols)| WindowSize { rows, cols })
}

pub(super) fn rlimit() -> impl Strategy<Value = Rlimit> {
    let resource = prop_oneof![
        Just(Resource::As),
        Just(Resource::Nofile),
        Just(Resource::Stack)
    ];
    (resource, any::<u64>(), any::<u64>()).prop_map(|(resource, soft, hard)| Rlimit {
        resource,
        soft,
        hard,
    })
}

pub(super) fn user() -> impl Strategy<Value = User> {
    (any::<u32>(), any::<u32>(), vec(any::<u32>(), 0..5)).prop_map(|(uid, gid, additional_gids)| {
        User {
            uid,
            gid,
            additional_gids,
        }
    })
}

/// Of a process, what is beside its rights.
fn unprivileged() -> impl Strategy<Value = Process> {
    (
        vec(".*", 0..5),
        vec(".*", 0..5),
        ".*",
        vec(rlimit(), 0..4),
        option::of(any::<u32>()),
        option::of(any::<i32>()),
        option::of(window()),
        any::<bool>(),
    )
        .prop_map(
            |(args, env, cwd, rlimits, umask, oom_score_adj, terminal, null_input)| Process {
                args,
                env,
                cwd,
                rlimits,
                umask,
                oom_score_adj,
                terminal,
                null_input,
                ..Default::default()
            },
        )
}

fn process() -> impl Strategy<Value = Process> {
    (
        unprivileged(),
        user(),
        option::of(capabilities()),
        any::<bool>(),
        vec(instruction(), 0..9),
    )
        .prop_map(
            |(process, user, capabilities, no_new_privileges, seccomp)| Process {
                user,
                capabilities,
                no_new_privileges,
                seccomp,
                ..process
            },
        )
}

fn address() -> impl Strategy<Value = Address> {
    let addresses = (any::<IpAddr>(), option::of(any::<IpAddr>()));
    let broadcast = option::of(any::<Ipv4Addr>());
    (addresses, any::<u8>(), broadcast, any::<u8>()).prop_map(
        |((address, peer), prefix, broadcast, scope)| Address {
            address,
            peer,
            prefix,
            broadcast,
            scope,
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    let addresses = (option::of(any::<IpAddr>()), option::of(any::<IpAddr>()));
    let destination = any::<(IpAddr, u8)>();
    (
        destination,
        addresses,
        any::<[u32; 3]>(),
        any::<[u8; 3]>(),
        any::<bool>(),
    )
        .prop_map(
            |(
                destination,
                (gateway, source),
                [metric, table, mtu],
                [scope, protocol, kind],
                on_link,
            )| Route {
                destination,
                gateway,
                source,
                metric,
                table,
                scope,
                protocol,
                kind,
                on_link,
                mtu,
            },
        )
}

fn interface() -> impl Strategy<Value = Interface> {
    let lists = (vec(address(), 0..3), vec(route(), 0..3));
    (any::<[u8; 6]>(), ".*", any::<u32>(), lists).prop_map(
        |(mac, name, mtu, (addresses, routes))| Interface {
            mac: MacAddress(mac),
            name,
            mtu,
            addresses,
            routes,
        },
    )
}

fn packet_rule() -> impl Strategy<Value = PacketRule> {
    let attributes = vec(any::<u8>(), 0..40);
    (any::<u8>(), any::<u8>(), attributes).prop_map(|(message, family, attributes)| PacketRule {
        message,
        family,
        attributes,
    })
}

fn resolver() -> impl Strategy<Value = Resolver> {
    let ports = option::of(any::<(u16, u16)>());
    (any::<IpAddr>(), vec(any::<IpAddr>(), 0..4), ports).prop_map(|(address, servers, ports)| {
        Resolver {
            address,
            servers,
            ports,
        }
    })
}

fn agent() -> impl Strategy<Value = Agent> {
    any::<[String; 4]>().prop_map(|[container, authority, certificate, key]| Agent {
        container,
        authority,
        certificate,
        key,
    })
}

fn root_disk() -> impl Strategy<Value = RootDisk> {
    (".*", vec(".*", 0..3)).prop_map(|(id, exclude)| RootDisk { id, exclude })
}

fn start() -> impl Strategy<Value = Start> {
    let paths = || vec(".*", 0..3);
    (
        root(),
        (vec(mount(), 0..4), option::of(mountable())),
        (
            vec(device(), 0..3),
            (vec(disk(), 0..3), option::of(root_disk()), any::<bool>()),
            vec(interface(), 0..3),
            vec(packet_rule(), 0..3),
        ),
        (option::of(resolver()), option::of(".*"), option::of(".*")),
        vec((".*", ".*"), 0..3),
        (paths(), paths()),
        option::of(vec((".*", ".*"), 0..3)),
        (option::of(agent()), process()),
    )
        .prop_map(
            |(
                root,
                (mounts, modules),
                (devices, (disks, root_disk, crypto_adapters), interfaces, packet_rules),
                (resolver, resolv_conf, hostname),
                sysctls,
                paths,
                cgroup,
                (agent, process),
            )| Start {
                root,
                mounts,
                modules,
                devices,
                disks,
                root_disk,
                crypto_adapters,
                interfaces,
                packet_rules,
                resolver,
                resolv_conf,
                hostname,
                sysctls,
                masked_paths: paths.0,
                read_only_paths: paths.1,
                cgroup,
                agent,
                process,
            },
        )
}

fn mac() -> impl Strategy<Value = MacAddress> {
    any::<[u8; 6]>().prop_map(MacAddress)
}

fn plug() -> impl Strategy<Value = Plug> {
    let routes = || vec(route(), 0..3);
    let change = (mac(), routes(), routes());
    prop_oneof![
        interface().prop_map(Plug::Add),
        mac().prop_map(Plug::Remove),
        change.prop_map(|(mac, added, removed)| Plug::Routes {
            mac,
            added,
            removed
        }),
    ]
}

fn to_guest() -> impl Strategy<Value = ToGuest> {
    prop_oneof![
        start().prop_map(ToGuest::start),
        any::<i32>().prop_map(|number| ToGuest::Signal { number }),
        window().prop_map(ToGuest::Resize),
        plug().prop_map(ToGuest::Plug),
    ]
}

fn to_host() -> impl Strategy<Value = ToHost> {
    prop_oneof![
        Just(ToHost::hello()),
        any::<u32>().prop_map(|pid| ToHost::Started { pid }),
        any::<(u64, u64)>().prop_map(|(files, bytes)| ToHost::Copied { files, bytes }),
        mac().prop_map(ToHost::Unplugged),
        ".*".prop_map(|name| ToHost::OutOfMemory { name }),
        any::<u8>().prop_map(|code| ToHost::Exited { code }),
        (any::<u8>(), ".*").prop_map(|(code, message)| ToHost::Failed { code, message }),
    ]
}

/// Sends and receives through a byte stream.
fn round_trip<M: Message + PartialEq + std::fmt::Debug>(messages: &[M]) {
    let mut stream = Vec::new();
    for message in messages {
        send(&mut stream, message).unwrap();
    }
    let mut reader = stream.as_slice();
    for message in messages {
        assert_eq!(&recv::<M>(&mut reader).unwrap(), message);
    }
    assert!(matches!(recv::<M>(&mut reader), Err(Error::Closed)));
}

/// A frame with this body.
pub(super) fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

proptest! {
    #[test]
    fn every_message_to_the_guest_survives_the_trip(messages in vec(to_guest(), 0..4)) {
        round_trip(&messages);
    }

    #[test]
    fn every_message_to_the_host_survives_the_trip(messages in vec(to_host(), 0..6)) {
        round_trip(&messages);
    }

    #[test]
    fn the_decoder_does_not_care_where_the_bytes_are_split(
        messages in vec(to_host(), 1..6),
        step in 1usize..40,
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|m| encode(m).unwrap()).collect();
        let mut decoder = Decoder::<ToHost>::new();
        let mut received = Vec::new();
        for bytes in stream.chunks(step) {
            decoder.push(bytes);
            while let Some(message) = decoder.next().unwrap() {
                received.push(message);
            }
        }
        prop_assert_eq!(received, messages);
        prop_assert!(decoder.is_empty());
    }

    #[test]
    fn a_cut_message_is_an_unexpected_end(message in to_guest(), cut in any::<prop::sample::Index>()) {
        let stream = encode(&message).unwrap();
        let cut = 1 + cut.index(stream.len() - 1);
        let result = recv::<ToGuest>(&mut &stream[..cut]);
        prop_assert!(
            matches!(&result, Err(Error::Io(e)) if e.kind() == ErrorKind::UnexpectedEof),
            "{result:?}"
        );
    }

    #[test]
    fn any_bytes_give_a_message_or_an_error(body in vec(any::<u8>(), 0..200)) {
        let stream = frame(&body);
        // Equal except for numbers that came with more bytes than they need.
        if let Ok(message) = recv::<ToGuest>(&mut stream.as_slice()) {
            prop_assert!(encode(&message).unwrap().len() <= stream.len());
        }
        let mut decoder = Decoder::<ToHost>::new();
        decoder.push(&stream);
        let _ = decoder.next();
        prop_assert!(decoder.is_empty(), "a frame is consumed whether it is good or not");
    }

    #[test]
    fn any_stream_ends_the_decoder_in_a_bounded_state(chunks in vec(vec(any::<u8>(), 0..64), 0..64)) {
        let mut decoder = Decoder::<ToGuest>::new();
        for chunk in chunks {
            decoder.push(&chunk);
            loop {
                match decoder.next() {
                    Ok(None) => break,
                    Err(Error::TooLong(length)) => {
                        prop_assert!(length > MAX_FRAME);
                        return Ok(());
                    }
                    Ok(Some(_)) | Err(Error::Malformed | Error::Version(_)) => {}
                    Err(error) => prop_assert!(false, "{error}"),
                }
            }
            prop_assert!(decoder.buffer.len() < HEADER + MAX_FRAME);
        }
    }
}

#[test]
fn the_length_is_bounded_both_ways() {
    let header = u32::try_from(MAX_FRAME + 1).unwrap().to_le_bytes();
    assert!(matches!(
        recv::<ToHost>(&mut header.as_slice()),
        Err(Error::TooLong(length)) if length == MAX_FRAME + 1
    ));
    let mut decoder = Decoder::<ToHost>::new();
    decoder.push(&u32::MAX.to_le_bytes());
    assert!(matches!(decoder.next(), Err(Error::TooLong(_))));

    let mut sent = Vec::new();
    let message = ToHost::Failed {
        code: 1,
        message: "x".repeat(MAX_FRAME),
    };
    assert!(matches!(send(&mut sent, &message), Err(Error::TooLong(_))));
    assert!(sent.is_empty());
}

#[test]
fn the_largest_frame_is_accepted() {
    // Variant, code, and three bytes for the length of the text.
    let message = ToHost::Failed {
        code: 1,
        message: "x".repeat(MAX_FRAME - 5),
    };
    assert_eq!(encode(&message).unwrap().len(), HEADER + MAX_FRAME);
    round_trip(&[message]);
}

#[test]
fn another_version_is_named_whatever_follows_it() {
    for body in [vec![0, 99], vec![0, 99, 0xff, 0xff, 0xff]] {
        let stream = frame(&body);
        assert!(matches!(
            recv::<ToGuest>(&mut stream.as_slice()),
            Err(Error::Version(99))
        ));
        assert!(matches!(
            recv::<ToHost>(&mut stream.as_slice()),
            Err(Error::Version(99))
        ));
    }
}

#[test]
fn bytes_behind_a_message_are_refused() {
    let mut body = encode(&ToHost::hello()).unwrap().split_off(HEADER);
    body.push(0);
    assert!(matches!(
        recv::<ToHost>(&mut frame(&body).as_slice()),
        Err(Error::Malformed)
    ));
}

#[test]
fn a_message_after_a_malformed_one_is_received() {
    let mut decoder = Decoder::<ToHost>::new();
    decoder.push(&frame(&[99]));
    decoder.push(&encode(&ToHost::Exited { code: 3 }).unwrap());
    assert!(matches!(decoder.next(), Err(Error::Malformed)));
    assert_eq!(decoder.next().unwrap(), Some(ToHost::Exited { code: 3 }));
    assert_eq!(decoder.next().unwrap(), None);
}

#[test]
fn a_list_that_claims_to_be_huge_is_refused_before_it_is_allocated() {
    // Start, this version, then a file system type of 2^32-1 bytes.
    let version = u8::try_from(VERSION).unwrap();
    let body = [0, version, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(matches!(
        recv::<ToGuest>(&mut frame(&body).as_slice()),
        Err(Error::Malformed)
    ));
}
