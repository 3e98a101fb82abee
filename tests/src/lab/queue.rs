//! The kernel's packet queue (NFQUEUE) over netlink: its messages, and a socket that speaks them.
//!
//! Packets stay in the kernel; only their numbers come here, and verdicts on numbers go back.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, bind, recv, send, socket};

const HEADER_BYTES: usize = 20;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// What the kernel may have to tell while nobody listens.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;
const READ_BYTES: usize = 64 << 10;
/// How long a read waits, so that its thread can end.
const READ_WAIT: Duration = Duration::from_millis(100);

const NLMSG_ERROR: u16 = 2;
const SUBSYSTEM_QUEUE: u16 = 3 << 8;
const MESSAGE_PACKET: u16 = SUBSYSTEM_QUEUE;
const MESSAGE_VERDICT: u16 = SUBSYSTEM_QUEUE | 1;
const MESSAGE_CONFIG: u16 = SUBSYSTEM_QUEUE | 2;
const MESSAGE_VERDICT_BATCH: u16 = SUBSYSTEM_QUEUE | 3;
const FLAG_REQUEST: u16 = 1;
const FLAG_ACK: u16 = 4;

const PACKET_HEADER: u16 = 1;
const VERDICT_HEADER: u16 = 2;
const CONFIG_COMMAND: u16 = 1;
const CONFIG_PARAMETERS: u16 = 2;
const CONFIG_LENGTH_MAX: u16 = 3;
const CONFIG_MASK: u16 = 4;
const CONFIG_FLAGS: u16 = 5;
const COMMAND_BIND: u8 = 1;
const COPY_METADATA: u8 = 1;
/// Large packets come as one and are not cut.
const WHOLE_PACKETS: u32 = 4;

const VERDICT_DROP: u32 = 0;
const VERDICT_ACCEPT: u32 = 1;

/// A packet's number in its queue; they rise.
pub(super) type PacketNumber = u32;

/// One queue of this network namespace. Reads and verdicts may come from different threads.
#[derive(Debug)]
pub(super) struct PacketQueue {
    socket: OwnedFd,
    queue: u16,
}

impl PacketQueue {
    /// Binds queue `queue`, which holds up to `length_max` packets.
    pub(super) fn bind(queue: u16, length_max: u32) -> io::Result<Self> {
        let socket = socket(AddressFamily::NETLINK, SocketType::RAW, Some(NETFILTER))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        // A smaller buffer serves as well until much happens at once.
        set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).unwrap_or_default();
        set_socket_timeout(&socket, Timeout::Recv, Some(READ_WAIT))?;
        let this = Self { socket, queue };
        this.configure(&[(CONFIG_COMMAND, &[COMMAND_BIND, 0, 0, 0])])?;
        this.configure(&[
            (CONFIG_PARAMETERS, &[0, 0, 0, 0, COPY_METADATA]),
            (CONFIG_LENGTH_MAX, &length_max.to_be_bytes()),
            (CONFIG_MASK, &WHOLE_PACKETS.to_be_bytes()),
            (CONFIG_FLAGS, &WHOLE_PACKETS.to_be_bytes()),
        ])?;
        Ok(this)
    }

    /// Sends a configuration message and waits for the kernel's answer.
    fn configure(&self, attributes: &[(u16, &[u8])]) -> io::Result<()> {
        self.send(&message(MESSAGE_CONFIG, FLAG_ACK, self.queue, attributes))?;
        let mut buffer = vec![0; READ_BYTES];
        let (_, count) = recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        match acknowledgement(buffer.get(..count).unwrap_or_default()) {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Appends the numbers of packets that came; returns after 100 ms when none did.
    pub(super) fn read(&self, buffer: &mut [u8], into: &mut Vec<PacketNumber>) -> io::Result<()> {
        match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, count)) => packets(buffer.get(..count).unwrap_or_default(), into),
            // ENOBUFS: some were not told, and are dropped by the kernel; the rest goes on.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Lets every packet up to `last` go on.
    pub(super) fn accept_up_to(&self, last: PacketNumber) -> io::Result<()> {
        self.send(&self.verdict(MESSAGE_VERDICT_BATCH, VERDICT_ACCEPT, last))
    }

    /// Loses one packet.
    pub(super) fn drop_one(&self, packet: PacketNumber) -> io::Result<()> {
        self.send(&self.verdict(MESSAGE_VERDICT, VERDICT_DROP, packet))
    }

    fn verdict(&self, kind: u16, verdict: u32, packet: PacketNumber) -> Vec<u8> {
        let body = (u64::from(verdict) << 32 | u64::from(packet)).to_be_bytes();
        message(kind, 0, self.queue, &[(VERDICT_HEADER, &body)])
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        send(&self.socket, message, SendFlags::empty()).map(drop).map_err(io::Error::from)
    }

    /// A buffer for [`Self::read`].
    pub(super) fn read_buffer() -> Vec<u8> {
        vec![0; READ_BYTES]
    }
}

/// A netlink message for `queue`, padded as netlink wants it.
fn message(kind: u16, flags: u16, queue: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (attribute, value) in attributes {
        let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + value.len()).unwrap_or(u16::MAX);
        body.extend(length.to_ne_bytes());
        body.extend(attribute.to_ne_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((FLAG_REQUEST | flags).to_ne_bytes());
    // Sequence and sender: the kernel needs neither.
    message.extend([0; 8]);
    // Family and version 0.
    message.extend([0; 2]);
    message.extend(queue.to_be_bytes());
    message.extend(body);
    message
}

/// Splits one piece off, whose length in bytes its first field tells.
fn piece(bytes: &[u8], length: usize, header: usize) -> Option<(&[u8], &[u8])> {
    if length < header {
        return None;
    }
    let piece = bytes.get(..length)?;
    Some((piece, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The kind and the rest of each netlink message in `bytes`, its 16-byte header taken off.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let (message, rest) = piece(bytes, length, 16)?;
        bytes = rest;
        let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
        Some((kind, message.get(16..)?))
    })
}

/// The kind and value of each attribute in `bytes`.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let (attribute, rest) = piece(bytes, length, ATTRIBUTE_HEADER_BYTES)?;
        bytes = rest;
        let kind = u16::from_ne_bytes(*attribute.get(2..)?.first_chunk()?) & 0x3FFF;
        Some((kind, attribute.get(ATTRIBUTE_HEADER_BYTES..)?))
    })
}

/// The error code of the first acknowledgement in `bytes`: 0 or a negative errno.
fn acknowledgement(bytes: &[u8]) -> Option<i32> {
    let (_, body) = messages(bytes).find(|(kind, _)| *kind == NLMSG_ERROR)?;
    Some(i32::from_ne_bytes(*body.first_chunk()?))
}

/// Appends the packet numbers that `bytes` tells.
fn packets(bytes: &[u8], into: &mut Vec<PacketNumber>) {
    for (kind, body) in messages(bytes) {
        if kind != MESSAGE_PACKET {
            continue;
        }
        let header =
            attributes(body.get(4..).unwrap_or_default()).find(|(attribute, _)| *attribute == PACKET_HEADER);
        if let Some(number) = header.and_then(|(_, value)| value.first_chunk()) {
            into.push(u32::from_be_bytes(*number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(number: u32) -> Vec<u8> {
        let mut header = number.to_be_bytes().to_vec();
        header.extend([8, 0, 2]);
        message(MESSAGE_PACKET, 0, 1, &[(9, &[1, 2, 3]), (PACKET_HEADER, &header)])
    }

    fn read(bytes: &[u8]) -> Vec<u32> {
        let mut found = Vec::new();
        packets(bytes, &mut found);
        found
    }

    #[test]
    fn packet_numbers_are_found_among_other_attributes_and_messages() {
        let mut bytes = packet(7);
        bytes.extend(message(NLMSG_ERROR, 0, 1, &[]));
        bytes.extend(packet(0x0102_0304));
        assert_eq!(read(&bytes), [7, 0x0102_0304]);
    }

    #[test]
    fn truncated_messages_tell_nothing_and_do_not_loop() {
        let bytes = packet(7);
        for length in 0..bytes.len() - 1 {
            assert!(read(&bytes[..length]).is_empty(), "{length}");
        }
        assert!(read(&[0; 64]).is_empty());
    }

    #[test]
    fn an_acknowledgement_tells_its_error() {
        let mut answer = message(NLMSG_ERROR, 0, 1, &[]);
        answer.splice(16..20, (-1_i32).to_ne_bytes());
        assert_eq!(acknowledgement(&answer), Some(-1));
        assert_eq!(acknowledgement(&packet(1)), None);
    }
}
