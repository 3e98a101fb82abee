//! Hosts and the router between them. This process's own network namespace is the router.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::delayer::Delayer;
use super::namespace::{LabError, run_line};
use crate::process::NodeProgram;

/// Memory of a TCP socket: enough for 1 Gbit/s at 220 ms, where the default stops at about 130 Mbit/s.
const TCP_MEMORY: &str = "4096 262144 67108864";

/// Describes hosts, their lines and their distances.
#[derive(Debug, Clone, Default)]
pub struct NetworkBuilder {
    hosts: Vec<String>,
    round_trips: BTreeMap<(String, String), Duration>,
    line: Option<Line>,
    congestion_control: Option<String>,
}

/// The line of every host towards the router, the same both ways.
#[derive(Debug, Clone, Copy)]
struct Line {
    mbit_per_s: u32,
    queue_bytes: u32,
}

impl NetworkBuilder {
    /// Adds a host.
    #[must_use]
    pub fn host(mut self, name: &str) -> Self {
        self.hosts.push(name.to_owned());
        self
    }

    /// Sets the round trip between two hosts; without one packets are not held.
    #[must_use]
    pub fn rtt(mut self, one: &str, other: &str, round_trip: Duration) -> Self {
        for (from, to) in [(one, other), (other, one)] {
            self.round_trips.insert((from.to_owned(), to.to_owned()), round_trip);
        }
        self
    }

    /// Limits what each host receives; `queue_bytes` wait in front of the line, what comes on top is dropped.
    #[must_use]
    pub fn rate(mut self, mbit_per_s: u32, queue_bytes: u32) -> Self {
        self.line = Some(Line { mbit_per_s, queue_bytes });
        self
    }

    /// The congestion control of every host instead of the system's. The kernel allows those that are in
    /// `net.ipv4.tcp_allowed_congestion_control` of the machine itself.
    #[must_use]
    pub fn congestion_control(mut self, name: &str) -> Self {
        self.congestion_control = Some(name.to_owned());
        self
    }

    /// Makes it. To be called once, inside [`super::enter`].
    ///
    /// # Errors
    /// When a command of iproute2 or iptables fails, or packets cannot be queued.
    pub fn build(self) -> Result<Network, LabError> {
        let mut network = Network { hosts: BTreeMap::new(), delayers: Vec::new() };
        for line in ["mkdir -p /run/netns", "sysctl -q -w net.ipv4.ip_forward=1", "ip link set lo up"] {
            run_line(line)?;
        }
        for (number, name) in (1_u8..).zip(&self.hosts) {
            self.add_host(name, number)?;
            let address = IpAddr::V4(Ipv4Addr::new(10, 7, number, 2));
            network.hosts.insert(name.clone(), Host { name: name.clone(), address });
        }
        for (queue, ((from, to), round_trip)) in (1_u16..).zip(&self.round_trips) {
            run_line(&format!(
                "iptables -t mangle -A FORWARD -i {from} -o {to} -j NFQUEUE --queue-num {queue}"
            ))?;
            let delayer =
                Delayer::start(queue, *round_trip / 2, u64::from(queue)).map_err(LabError::Queue)?;
            network.delayers.push(((from.clone(), to.clone()), delayer));
        }
        Ok(network)
    }

    fn add_host(&self, name: &str, number: u8) -> Result<(), LabError> {
        let mut lines = vec![
            format!("ip netns add {name}"),
            format!("ip link add {name} type veth peer name line netns {name}"),
            format!("ip addr add 10.7.{number}.1/24 dev {name}"),
            format!("ip link set {name} up"),
            format!("ip -n {name} link set lo up"),
            format!("ip -n {name} addr add 10.7.{number}.2/24 dev line"),
            format!("ip -n {name} link set line up"),
            format!("ip -n {name} route add default via 10.7.{number}.1"),
        ];
        if let Some(Line { mbit_per_s, queue_bytes }) = self.line {
            lines.push(format!(
                "tc qdisc add dev {name} root tbf rate {mbit_per_s}mbit burst 128k limit {queue_bytes}"
            ));
        }
        for line in lines {
            run_line(&line)?;
        }
        let mut settings =
            vec![format!("net.ipv4.tcp_rmem={TCP_MEMORY}"), format!("net.ipv4.tcp_wmem={TCP_MEMORY}")];
        if let Some(control) = &self.congestion_control {
            settings.push(format!("net.ipv4.tcp_congestion_control={control}"));
        }
        for setting in settings {
            super::namespace::run("ip", &["netns", "exec", name, "sysctl", "-q", "-w", &setting])?;
        }
        Ok(())
    }
}

/// A host of the lab.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    address: IpAddr,
}

impl Host {
    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The same program, run on this host.
    pub fn program(&self, program: &NodeProgram) -> NodeProgram {
        let mut arguments: Vec<String> =
            ["netns", "exec", &self.name].into_iter().map(str::to_owned).collect();
        arguments.push(program.executable.display().to_string());
        arguments.extend(program.arguments.iter().cloned());
        NodeProgram { executable: "ip".into(), arguments }
    }
}

/// Hosts that are there. Dropping it stops every packet between them.
#[derive(Debug)]
pub struct Network {
    hosts: BTreeMap<String, Host>,
    delayers: Vec<((String, String), Delayer)>,
}

impl Network {
    /// Begins a description.
    pub fn builder() -> NetworkBuilder {
        NetworkBuilder::default()
    }

    /// A host.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn host(&self, name: &str) -> Result<&Host, LabError> {
        self.hosts.get(name).ok_or_else(|| LabError::NoSuchHost(name.to_owned()))
    }

    /// Drops every packet from one host to another, or lets them pass again. Nobody is told.
    ///
    /// # Errors
    /// When iptables fails.
    pub fn cut(&self, from: &str, to: &str, cut: bool) -> Result<(), LabError> {
        drop_packets(&format!("-i {from} -o {to}"), cut)
    }

    /// Drops every packet from and to a host, or lets them pass again: its line is pulled.
    ///
    /// # Errors
    /// When iptables fails.
    pub fn unplug(&self, host: &str, unplugged: bool) -> Result<(), LabError> {
        drop_packets(&format!("-i {host}"), unplugged)?;
        drop_packets(&format!("-o {host}"), unplugged)
    }

    /// Drops every UDP packet between hosts.
    ///
    /// # Errors
    /// When iptables fails.
    pub fn drop_udp(&self) -> Result<(), LabError> {
        drop_packets("-p udp", true)
    }

    /// Takes a host's address away and gives it another one: what it had connected goes nowhere.
    ///
    /// # Errors
    /// When iproute2 fails, or the host is not there.
    pub fn readdress(&mut self, name: &str) -> Result<IpAddr, LabError> {
        let host = self.hosts.get_mut(name).ok_or_else(|| LabError::NoSuchHost(name.to_owned()))?;
        let IpAddr::V4(old) = host.address else { return Ok(host.address) };
        let [one, two, three, last] = old.octets();
        let new = Ipv4Addr::new(one, two, three, last.wrapping_add(1));
        for line in [
            format!("ip -n {name} addr del {old}/24 dev line"),
            format!("ip -n {name} addr add {new}/24 dev line"),
            format!("ip -n {name} route replace default via {one}.{two}.{three}.1"),
        ] {
            run_line(&line)?;
        }
        host.address = IpAddr::V4(new);
        Ok(host.address)
    }

    /// The delay of packets from one host to another, which may be changed while they flow.
    pub fn delayer(&self, from: &str, to: &str) -> Option<&Delayer> {
        let wanted = |((one, other), _): &&((String, String), Delayer)| one == from && other == to;
        self.delayers.iter().find(wanted).map(|(_, delayer)| delayer)
    }
}

fn drop_packets(which: &str, cut: bool) -> Result<(), LabError> {
    let action = if cut { "-I" } else { "-D" };
    run_line(&format!("iptables {action} FORWARD {which} -j DROP"))
}
