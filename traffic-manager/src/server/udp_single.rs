//! Receives and sends one datagram at a time, where the kernel has no call for many.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::{QUERY_BYTES_MAX, response_buffer};

/// The buffers of one socket.
pub(super) struct Exchange {
    input: Vec<u8>,
    received: Option<(usize, SocketAddr)>,
    output: Vec<u8>,
    to: Option<SocketAddr>,
}

impl Exchange {
    pub(super) fn new(_socket: &UdpSocket) -> io::Result<Self> {
        Ok(Self { input: vec![0; QUERY_BYTES_MAX], received: None, output: response_buffer(), to: None })
    }

    /// Waits for a query; 0 when there was none for a while.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.received = None;
        match socket.recv_from(&mut self.input) {
            Ok(received) => {
                self.received = Some(received);
                Ok(1)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(0),
                // An earlier response did not reach its client.
                io::ErrorKind::ConnectionReset => Ok(0),
                _ => Err(error),
            },
        }
    }

    /// Hands the query to `answer`, which says whether it wrote a response.
    pub(super) fn answer(&mut self, mut answer: impl FnMut(&[u8], IpAddr, &mut Vec<u8>) -> bool) {
        self.to = None;
        let Some((bytes, from)) = self.received else { return };
        let Some(query) = self.input.get(..bytes) else { return };
        if answer(query, from.ip(), &mut self.output) {
            self.to = Some(from);
        }
    }

    /// Sends the response. One that the system refuses is as good as lost on the way.
    pub(super) fn send(&mut self, socket: &UdpSocket) {
        if let Some(to) = self.to.take()
            && let Err(error) = socket.send_to(&self.output, to)
        {
            tracing::trace!(%error, "a response was not sent");
        }
    }
}
