//! The plain relay of `cargo xtask bench`: the agent's runtime and buffer sizes, nothing looked at.
//!
//! `relay LISTEN SERVER` copies bytes both ways until both sides have closed.

use std::io::Write as _;

use anyhow::Context as _;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

/// Buffer of each direction; taken while a connection lives.
const BUFFER_BYTES: usize = 8 * 1024;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let listen = args.next().context("relay LISTEN SERVER")?;
    let server = args.next().context("relay LISTEN SERVER")?;
    let listener = TcpListener::bind(&listen).await?;
    loop {
        let (client, _) = listener.accept().await?;
        let server = server.clone();
        tokio::spawn(async move {
            if let Err(error) = relay(client, &server).await {
                let _ = writeln!(std::io::stderr(), "relay: {error}");
            }
        });
    }
}

async fn relay(mut client: TcpStream, server: &str) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}
