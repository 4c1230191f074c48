//! Binding the socket, with an error that names the address.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

/// An address can't be listened on.
#[derive(Debug)]
pub struct BindError {
    host: String,
    port: u16,
    /// What the system said.
    pub source: io::Error,
}

impl BindError {
    pub(super) fn new(host: &str, port: u16, source: io::Error) -> Self {
        Self {
            host: host.to_owned(),
            port,
            source,
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, source } = self;
        let colon = host.contains(':');
        let (open, close) = if colon { ("[", "]") } else { ("", "") };
        write!(
            f,
            "probes cannot listen on {open}{host}{close}:{port}: {source}"
        )
    }
}

impl std::error::Error for BindError {}

/// Listens on the first address of `host` that can be had; port 0 is any free
/// one. Waits for the resolver when `host` is not numeric.
pub(super) fn bind(host: &str, port: u16) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError::new(host, port, source);
    let listener = (host, port)
        .to_socket_addrs()
        .and_then(|all| TcpListener::bind(all.collect::<Vec<_>>().as_slice()))
        .map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_named() {
        let (_first, address) = bind("127.0.0.1", 0).unwrap();

        let error = bind("127.0.0.1", address.port()).unwrap_err();

        let start = format!("probes cannot listen on 127.0.0.1:{}: ", address.port());
        assert!(error.to_string().starts_with(&start), "{error}");
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_host_that_is_no_address_is_named() {
        assert!(
            bind("no such host", 1)
                .unwrap_err()
                .to_string()
                .contains("no such host:1")
        );
    }
}
