//! Loopback addresses of one deployment: a block of 127.0.0.0/8 that no other deployment on the machine uses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use rand::Rng;

/// Blocks to try before giving up.
const ATTEMPTS_MAX: usize = 64;

/// 127.A.B.0/24 and one port that is free on its addresses.
#[derive(Debug)]
pub struct LoopbackBlock {
    second: u8,
    third: u8,
    port: u16,
    next: u8,
    /// Holds the block against other deployments on this machine.
    _claim: TcpListener,
}

impl LoopbackBlock {
    /// Claims a block by holding a listener on its first address.
    ///
    /// # Errors
    /// When none of the blocks tried is free.
    pub fn claim(random: &mut impl Rng) -> std::io::Result<Self> {
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS_MAX {
            let (second, third) = (random.random_range(16..250), random.random_range(0..250));
            // Below the range that the kernel hands out to outgoing connections.
            let port = random.random_range(10_000..32_000);
            match TcpListener::bind((Ipv4Addr::new(127, second, third, 1), port)) {
                Ok(claim) => return Ok(Self { second, third, port, next: 2, _claim: claim }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The port that every service address of the deployment shares.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next address of the block with the shared port; `None` when all 253 are taken.
    pub fn next_address(&mut self) -> Option<SocketAddr> {
        let host = self.next;
        self.next = host.checked_add(1)?;
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, self.second, self.third, host)), self.port))
    }
}
