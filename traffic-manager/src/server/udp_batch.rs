//! Receives and sends many datagrams with one call to the kernel.
//!
//! A socket on the wildcard address learns where each query was sent to and answers from there: resolvers drop answers
//! that come from another address.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg,
    setsockopt,
};

use super::{QUERY_BYTES_MAX, response_buffer};

/// Datagrams of one call.
const BATCH: usize = 32;

/// The address of ours that a query was sent to.
#[derive(Clone, Copy)]
enum SentTo {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl SentTo {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::V4(a), Self::V4(b)) => a.ipi_spec_dst.s_addr == b.ipi_spec_dst.s_addr,
            (Self::V6(a), Self::V6(b)) => {
                a.ipi6_addr.s6_addr == b.ipi6_addr.s6_addr && a.ipi6_ifindex == b.ipi6_ifindex
            }
            (Self::V4(_), Self::V6(_)) | (Self::V6(_), Self::V4(_)) => false,
        }
    }
}

#[derive(Clone, Copy)]
struct Received {
    bytes: usize,
    from: Option<SockaddrStorage>,
    sent_to: Option<SentTo>,
}

/// The buffers of one socket.
pub(super) struct Exchange {
    inputs: Vec<Vec<u8>>,
    incoming: MultiHeaders<SockaddrStorage>,
    received: Vec<Received>,
    outputs: Vec<Vec<u8>>,
    outgoing: MultiHeaders<SockaddrStorage>,
    /// Of each output that is to be sent.
    to: Vec<Option<SockaddrStorage>>,
    from: Vec<Option<SentTo>>,
}

impl Exchange {
    pub(super) fn new(socket: &UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let space = if !address.ip().is_unspecified() {
            None
        } else if address.is_ipv4() {
            setsockopt(socket, Ipv4PacketInfo, &true)?;
            Some(nix::cmsg_space!(in_pktinfo))
        } else {
            setsockopt(socket, Ipv6RecvPacketInfo, &true)?;
            Some(nix::cmsg_space!(in6_pktinfo))
        };
        Ok(Self {
            inputs: vec![vec![0; QUERY_BYTES_MAX]; BATCH],
            incoming: MultiHeaders::preallocate(BATCH, space.clone()),
            received: Vec::with_capacity(BATCH),
            outputs: std::iter::repeat_with(response_buffer).take(BATCH).collect(),
            outgoing: MultiHeaders::preallocate(BATCH, space),
            to: Vec::with_capacity(BATCH),
            from: Vec::with_capacity(BATCH),
        })
    }

    /// Waits for queries; 0 when there were none for a while.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.received.clear();
        let mut inputs = self.inputs.iter_mut();
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(inputs.next().map_or(&mut [], Vec::as_mut_slice))]);
        let flags = MsgFlags::MSG_WAITFORONE;
        match recvmmsg(socket.as_raw_fd(), &mut self.incoming, slices.iter_mut(), flags, None) {
            Ok(messages) => {
                self.received.extend(messages.map(|message| Received {
                    bytes: message.bytes,
                    from: message.address,
                    sent_to: message.cmsgs().ok().and_then(|mut all| all.find_map(|one| sent_to(&one))),
                }));
                Ok(self.received.len())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands each query to `answer`, which says whether it wrote a response.
    pub(super) fn answer(&mut self, mut answer: impl FnMut(&[u8], IpAddr, &mut Vec<u8>) -> bool) {
        self.to.clear();
        self.from.clear();
        for (received, input) in self.received.iter().zip(&self.inputs) {
            let Some(out) = self.outputs.get_mut(self.to.len()) else { return };
            let (Some(source), Some(query)) =
                (received.from.as_ref().and_then(ip), input.get(..received.bytes))
            else {
                continue;
            };
            if answer(query, source, out) {
                self.to.push(received.from);
                self.from.push(received.sent_to);
            }
        }
    }

    /// Sends the responses. One that the kernel refuses is as good as lost on the way.
    pub(super) fn send(&mut self, socket: &UdpSocket) {
        let mut begin = 0;
        while begin < self.to.len() {
            begin += self.send_run(socket, begin).max(1);
        }
    }

    /// Sends the longest run from `begin` on that leaves from one address; says how many went.
    fn send_run(&mut self, socket: &UdpSocket, begin: usize) -> usize {
        let from = self.from.get(begin).copied().flatten();
        let same = |other: &&Option<SentTo>| match (&from, other) {
            (None, None) => true,
            (Some(a), Some(b)) => a.is(b),
            (None, Some(_)) | (Some(_), None) => false,
        };
        let count = self.from.iter().skip(begin).take_while(same).count();
        let mut outputs = self.outputs.iter().skip(begin);
        let slices: [[IoSlice<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSlice::new(outputs.next().map_or(&[], Vec::as_slice))]);
        let to = self.to.get(begin..begin + count).unwrap_or_default();
        let control = from.as_ref().map(|from| match from {
            SentTo::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            SentTo::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        });
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut self.outgoing,
            slices.iter().take(count),
            to,
            control.as_slice(),
            MsgFlags::empty(),
        );
        match sent {
            Ok(sent) => sent.count(),
            Err(error) => {
                tracing::trace!(%error, "a response was not sent");
                0
            }
        }
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(v4.ip().into()),
        (None, Some(v6)) => Some(v6.ip().into()),
        (None, None) => None,
    }
}

fn sent_to(message: &ControlMessageOwned) -> Option<SentTo> {
    if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
        // The interface is the routing table's to choose, the address is not.
        let (from, zero) = (info.ipi_addr, in_addr { s_addr: 0 });
        return Some(SentTo::V4(in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: zero }));
    }
    if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
        return Some(SentTo::V6(*info));
    }
    None
}
