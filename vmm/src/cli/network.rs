//! The option `--net`: a network interface of the guest, and where it leads on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use proto::MacAddress;
use serde::Deserialize;
use vmm::DeviceSpec;
use vmm::network::{self, DEFAULT_MTU, MAX_QUEUE_PAIRS, Tap, net};

/// The address of the first interface that has none of its own; the next ones count on. Locally
/// administered, as its first byte says.
const DEFAULT_MAC: [u8; 6] = [0x02, 0x72, 0x75, 0x6e, 0x71, 0];

/// Where the host's interfaces are.
const INTERFACES: &str = "/sys/class/net";

/// A network interface, written `tap=NAME` or `macvtap=NAME`, then perhaps `,mac=MAC`, `,queues=N`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Network {
    /// The host's interface.
    pub interface: String,
    /// Which kind that is.
    pub kind: NetworkKind,
    /// The guest's address; unset, it is the macvtap's, or one of our choice.
    pub mac: Option<MacAddress>,
    /// Pairs of queues, from 1 to [`MAX_QUEUE_PAIRS`].
    pub queues: u16,
}

/// What the host's side of an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NetworkKind {
    /// One of /dev/net/tun.
    Tap,
    /// One with a device node of its own, on top of another interface.
    Macvtap,
}

impl Network {
    /// The device, the `number`th of its kind; opens the host's side.
    ///
    /// # Errors
    /// Names the interface and what is wrong with it.
    pub(super) fn device(&self, number: u8) -> Result<DeviceSpec> {
        let name = &self.interface;
        let folder = Path::new(INTERFACES).join(name);
        let (queues, mac) = match self.kind {
            NetworkKind::Tap => (Tap::tun(name, self.queues), None),
            NetworkKind::Macvtap => {
                let node = macvtap_node(&folder)?;
                let own = attribute(&folder, "address")?.parse();
                let own = own.map_err(anyhow::Error::msg)?;
                (Tap::macvtap(&node, self.queues), Some(own))
            }
        };
        let queues = queues.with_context(|| format!("network interface {name}"))?;
        let mtu = attribute(&folder, "mtu")
            .ok()
            .and_then(|mtu| mtu.parse().ok());
        let mut default = DEFAULT_MAC;
        default[5] = number;
        Ok(DeviceSpec::Net(net::Config {
            name: name.clone(),
            mac: self.mac.or(mac).unwrap_or(MacAddress(default)).0,
            mtu: mtu.unwrap_or(DEFAULT_MTU),
            vhost: network::open_vhost(queues.len()),
            queues,
        }))
    }
}

/// The device node of a macvtap interface, which has to be up.
fn macvtap_node(folder: &Path) -> Result<PathBuf> {
    let name = folder.file_name().unwrap_or_default().display();
    ensure!(folder.exists(), "network interface {name}: there is none");
    if !folder.join("macvtap").is_dir() {
        bail!(
            "network interface {name}: no macvtap: make one with `ip link add link IF name {name} type macvtap mode bridge`"
        );
    }
    Ok(format!("/dev/tap{}", attribute(folder, "ifindex")?).into())
}

fn attribute(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(name);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.trim().to_owned())
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            format!(
                "{text:?} is not of the form tap=NAME or macvtap=NAME, with ,mac=MAC and ,queues=N"
            )
        };
        let mut parts = text.split(',').map(|part| part.split_once('='));
        let (kind, interface) = match parts.next().flatten() {
            Some(("tap", name)) if !name.is_empty() => (NetworkKind::Tap, name),
            Some(("macvtap", name)) if !name.is_empty() => (NetworkKind::Macvtap, name),
            _ => return Err(form()),
        };
        let (mut mac, mut queues) = (None, 1);
        for part in parts {
            match part {
                Some(("mac", address)) => mac = Some(unicast(address)?),
                Some(("queues", number)) => {
                    let number = number.parse().ok();
                    let number = number.filter(|number| (1..=MAX_QUEUE_PAIRS).contains(number));
                    queues = number.ok_or(format!("queues: 1 to {MAX_QUEUE_PAIRS} are allowed"))?;
                }
                _ => return Err(form()),
            }
        }
        Ok(Self {
            interface: interface.to_owned(),
            kind,
            mac,
            queues,
        })
    }
}

fn unicast(text: &str) -> Result<MacAddress, String> {
    let address: MacAddress = text.parse()?;
    if address.is_unicast() {
        Ok(address)
    } else {
        Err(format!("{address} is no address of one interface"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_name_an_interface_and_perhaps_more() {
        let network: Network = "tap=tap0".parse().unwrap();
        let expected = Network {
            interface: "tap0".into(),
            kind: NetworkKind::Tap,
            mac: None,
            queues: 1,
        };
        assert_eq!(network, expected);
        let network: Network = "macvtap=m,queues=8,mac=02:00:00:00:00:09".parse().unwrap();
        assert_eq!(network.kind, NetworkKind::Macvtap);
        assert_eq!(network.mac, Some(MacAddress([2, 0, 0, 0, 0, 9])));
        assert_eq!(network.queues, 8);
        for (wrong, expected) in [
            ("", "tap=NAME"),
            ("tap", "tap=NAME"),
            ("tap=", "tap=NAME"),
            ("veth=x", "tap=NAME"),
            ("tap=x,mtu=5", "tap=NAME"),
            ("tap=x,queues=0", "1 to 8"),
            ("tap=x,queues=9", "1 to 8"),
            ("tap=x,mac=ff:ff:ff:ff:ff:ff", "no address of one interface"),
            ("tap=x,mac=1", "02:42"),
        ] {
            let error = wrong.parse::<Network>().unwrap_err();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_is_no_macvtap_is_named() {
        let device = |text: &str| {
            let network: Network = text.parse().unwrap();
            network.device(0).unwrap_err().to_string()
        };
        assert_eq!(
            device("macvtap=nosuch0"),
            "network interface nosuch0: there is none"
        );
        assert!(
            device("macvtap=lo").starts_with("network interface lo: no macvtap: make one with")
        );
    }
}
