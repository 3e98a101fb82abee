//! The session's pure core behind a lock, and who waits for what.

use std::io;
use std::task::{Context, Poll};

use rc_proto::wire::codes::ResetCode;
use rc_proto::wire::{ChannelId, SessionId};
use tokio::io::ReadBuf;

pub(crate) struct SessionCore {}

impl SessionCore {
    pub(crate) fn session_id(&self) -> SessionId {
        unimplemented!()
    }
    pub(crate) fn reset_channel(&self, _id: ChannelId, _code: ResetCode, _message: &str) {}
    pub(crate) fn poll_acknowledged(
        &self,
        _id: ChannelId,
        _context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        unimplemented!()
    }
    pub(crate) fn poll_read(
        &self,
        _id: ChannelId,
        _context: &mut Context<'_>,
        _buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        unimplemented!()
    }
    pub(crate) fn poll_write(
        &self,
        _id: ChannelId,
        _context: &mut Context<'_>,
        _bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        unimplemented!()
    }
    pub(crate) fn finish_channel(&self, _id: ChannelId) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) fn release_channel(&self, _id: ChannelId) {}
}
