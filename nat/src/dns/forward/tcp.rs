//! A question to a resolver on a connection of its own (RFC 7766).

use std::io;
use std::net::SocketAddr;

use crate::host::{Connect, TcpHost, TcpSocket, Token};

/// A connection to a resolver with one question on it.
pub(super) struct TcpQuery<S> {
    socket: S,
    connected: bool,
    /// Bytes sent of the length and the message.
    sent: usize,
    received: Vec<u8>,
}

/// What came of an event.
pub(super) enum Moved {
    Wait,
    Failed,
    Answer(Vec<u8>),
}

impl<S: TcpSocket> TcpQuery<S> {
    /// Connects to `resolver`, events coming under `token`, to send `framed`: a message behind its length.
    pub(super) fn connect<H: TcpHost<Tcp = S>>(
        host: &mut H,
        token: Token,
        resolver: SocketAddr,
        framed: &[u8],
    ) -> io::Result<Self> {
        let (socket, connect) = host.tcp_connect(token, resolver)?;
        let mut query = Self {
            socket,
            connected: connect == Connect::Done,
            sent: 0,
            received: Vec::new(),
        };
        if query.connected {
            query.send(framed)?;
        }
        Ok(query)
    }

    fn send(&mut self, framed: &[u8]) -> io::Result<()> {
        while self.sent < framed.len() {
            match self.socket.send(&framed[self.sent..]) {
                Ok(0) => break,
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Goes on as far as the socket lets it.
    pub(super) fn advance(&mut self, framed: &[u8], scratch: &mut [u8]) -> Moved {
        if !self.connected {
            match self.socket.connected() {
                Ok(true) => self.connected = true,
                Ok(false) => return Moved::Wait,
                Err(_) => return Moved::Failed,
            }
        }
        if self.send(framed).is_err() {
            return Moved::Failed;
        }
        loop {
            match self.socket.peek(0, scratch) {
                Ok(0) => return Moved::Failed,
                Ok(n) => {
                    self.received.extend_from_slice(&scratch[..n]);
                    if self.socket.consume(n).is_err() {
                        return Moved::Failed;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Moved::Wait,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Moved::Failed,
            }
            if let Some(length) = self.received.first_chunk::<2>() {
                let end = 2 + usize::from(u16::from_be_bytes(*length));
                if self.received.len() >= end {
                    return Moved::Answer(self.received[2..end].to_vec());
                }
            }
        }
    }
}
