//! Where Docker's resolver really listens: at ports of the kernel's choice, to which Docker's packet
//! rules lead from port 53.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

/// States of sockets in /proc/net (`enum` of net/tcp_states.h); an unconnected UDP socket is closed.
const TCP_CLOSE: &str = "07";
const TCP_LISTEN: &str = "0A";

/// The ports, UDP's and TCP's, of the sockets in this process's network namespace that listen at this
/// address; none if there are not both.
pub(super) fn ports(address: IpAddr) -> Option<(u16, u16)> {
    let port = |protocol, state| {
        let table = fs::read_to_string(format!("/proc/self/net/{protocol}")).ok()?;
        table.lines().find_map(|line| port(line, address, state))
    };
    Some((port("udp", TCP_CLOSE)?, port("tcp", TCP_LISTEN)?))
}

/// The local port of a socket in this state at this address, from its line (`tcp4_seq_show`):
/// `sl local_address rem_address st ...`, an address as the number that its bytes are here.
fn port(line: &str, address: IpAddr, state: &str) -> Option<u16> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, port) = words.next()?.split_once(':')?;
    let local = u32::from_str_radix(local, 16).ok()?;
    let here = Ipv4Addr::from(local.to_ne_bytes()) == address;
    (here && words.nth(1)? == state).then(|| u16::from_str_radix(port, 16).ok())?
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use runtime::resolv_conf::RESOLVER;

    use super::*;

    #[test]
    fn a_line_tells_address_port_and_state() {
        let line = |local: &str, state: &str| {
            format!("  7: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000")
        };
        let number = u32::from_ne_bytes([127, 0, 0, 11]);
        let docker = format!("{number:08X}:9EDF");
        let found = |line: &str| port(line, RESOLVER, TCP_LISTEN);
        assert_eq!(found(&line(&docker, "0A")), Some(40671));
        assert_eq!(found(&line(&docker, "01")), None);
        assert_eq!(
            found(&line(&format!("{:08X}:9EDF", number ^ 1), "0A")),
            None
        );
        for damaged in ["x:9EDF", "0B00007F:", "0B00007F", ":", "", "0B00007F:19EDF"] {
            assert_eq!(found(&line(damaged, "0A")), None, "{damaged}");
        }
        let head = "  sl  local_address rem_address   st tx_queue rx_queue";
        for cut in [
            head,
            "",
            "7:",
            &format!("7: {docker}"),
            &format!("7: {docker} 0:0"),
        ] {
            assert_eq!(found(cut), None, "{cut}");
        }
    }

    #[test]
    fn the_sockets_that_listen_are_found() {
        // An address of nobody else's.
        let address = IpAddr::from([127, 45, 67, 89]);
        assert_eq!(ports(address), None);
        let tcp = TcpListener::bind((address, 0)).unwrap();
        assert_eq!(ports(address), None);
        let udp = UdpSocket::bind((address, 0)).unwrap();
        let expected = [udp.local_addr(), tcp.local_addr()].map(|at| at.unwrap().port());
        let client = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        assert_eq!(ports(address), Some(expected.into()));
        drop(client);
    }
}
