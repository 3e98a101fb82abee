//! The services that only move bytes: `tcp:`, `echo`, `sink`.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

use super::{ServiceError, Stream};

/// Scratch of one direction, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// Connects to the configured address and passes bytes both ways until both directions have ended.
pub(super) async fn tcp(mut channel: impl Stream, host: &str, port: u16) -> Result<(), ServiceError> {
    let failed = |source| ServiceError::Connect { host: host.to_owned(), port, source };
    let mut socket = TcpStream::connect((host, port)).await.map_err(failed)?;
    socket.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut channel, &mut socket, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}

/// Sends every byte back and ends when the peer does.
pub(super) async fn echo(mut channel: impl Stream) -> Result<(), ServiceError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = channel.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        channel.write_all(bytes).await?;
        channel.flush().await?;
    }
    channel.shutdown().await?;
    Ok(())
}

/// Counts and hashes every byte; answers `<bytes> <sha256>` and a newline when the peer has ended.
pub(super) async fn sink(mut channel: impl Stream) -> Result<(), ServiceError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hash = Sha256::new();
    let mut total: u64 = 0;
    loop {
        let count = channel.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        total += bytes.len() as u64;
    }
    let mut answer = format!("{total} ");
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _infallible = write!(answer, "{byte:02x}");
    }
    answer.push('\n');
    channel.write_all(answer.as_bytes()).await?;
    channel.shutdown().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn echo_returns_every_byte_and_then_ends() {
        let (mut near, far) = tokio::io::duplex(1024);
        let service = tokio::spawn(echo(far));
        near.write_all(b"hello").await.unwrap();
        near.shutdown().await.unwrap();
        let mut back = Vec::new();
        near.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"hello");
        service.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn sink_answers_with_count_and_hash() {
        let (mut near, far) = tokio::io::duplex(1024);
        tokio::spawn(sink(far));
        near.write_all(b"abc").await.unwrap();
        near.shutdown().await.unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n");
    }

    #[tokio::test]
    async fn tcp_passes_bytes_both_ways_and_half_closes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            socket.read_to_end(&mut asked).await.unwrap();
            asked.reverse();
            socket.write_all(&asked).await.unwrap();
        });
        let (mut near, far) = tokio::io::duplex(1024);
        tokio::spawn(tcp(far, "127.0.0.1", port));
        near.write_all(b"abc").await.unwrap();
        near.shutdown().await.unwrap();
        let mut back = Vec::new();
        near.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"cba");
    }

    #[tokio::test]
    async fn a_closed_port_is_named_in_the_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (_near, far) = tokio::io::duplex(16);
        let error = tcp(far, "127.0.0.1", port).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot connect to 127.0.0.1:{port}: ")), "{error}");
    }
}
