//! A network in memory: connections are pipes, and an address may be far, closed or silent.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use rc_transport::{BoxFuture, Connection, Listener, Net, PlainIo, SocketUse};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

const PIPE_BYTES: usize = 64 * 1024;

struct Place {
    round_trip: Duration,
    arrivals: mpsc::Sender<DuplexStream>,
}

/// Addresses and who listens there; all others refuse, silent ones never answer.
#[derive(Default)]
pub(crate) struct MemoryNet {
    places: Mutex<BTreeMap<SocketAddr, Place>>,
    silent: Mutex<Vec<SocketAddr>>,
}

impl MemoryNet {
    /// Listens at `address`, `round_trip` away from everybody.
    pub(crate) fn listen(&self, address: SocketAddr, round_trip: Duration) -> mpsc::Receiver<DuplexStream> {
        let (arrivals, taken) = mpsc::channel(64);
        self.places.lock().unwrap().insert(address, Place { round_trip, arrivals });
        taken
    }

    /// Connecting to `address` never ends.
    pub(crate) fn silence(&self, address: SocketAddr) {
        self.silent.lock().unwrap().push(address);
    }
}

impl Net for MemoryNet {
    fn connect(&self, address: SocketAddr, _purpose: SocketUse) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            if self.silent.lock().unwrap().contains(&address) {
                std::future::pending::<()>().await;
            }
            let place = self.places.lock().unwrap().get(&address).map(|p| (p.round_trip, p.arrivals.clone()));
            let Some((round_trip, arrivals)) = place else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            tokio::time::sleep(round_trip).await;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            arrivals.send(far).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            let local = SocketAddr::from(([127, 0, 0, 1], 1));
            Ok(Connection { io: Box::new(PlainIo(near)), remote: address, local })
        })
    }

    fn listen(&self, _address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}
