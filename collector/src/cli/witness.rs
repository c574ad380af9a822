//! `witness`: the role of the witness.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;

use crate::witness::server::{self, Config};

/// Port of a witness where none is given.
const WITNESS_PORT: &str = "127.0.0.1:7450";

/// `witness init`, `witness serve`
#[derive(Subcommand)]
pub enum Witness {
    /// Make a witness's directory with its key; prints the verifier key for the collectors
    Init {
        /// Directory to make
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Name that it signs under, for ever: one word like witness.example/audit
        #[arg(long)]
        name: String,
        /// Address and port for the collectors
        #[arg(long, value_name = "ADDR:PORT", default_value = WITNESS_PORT)]
        listen: SocketAddr,
        /// Verifier key of a log to watch (`log_key` in its keys.json)
        #[arg(long = "log", value_name = "VKEY", required = true)]
        logs: Vec<String>,
    },
    /// Sign what continues what was signed before, and nothing else
    Serve {
        /// The witness's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Runs it.
pub fn run(witness: Witness) -> anyhow::Result<()> {
    match witness {
        Witness::Init { dir, name, listen, logs } => {
            let key = server::init(&dir, &Config { name, listen, logs })?;
            writeln!(io::stdout(), "{key}")?;
            Ok(())
        }
        Witness::Serve { dir } => {
            super::log_to_stderr();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let mut terminate = signal(SignalKind::terminate())?;
                let mut interrupt = signal(SignalKind::interrupt())?;
                let running = server::start(&dir).await?;
                writeln!(io::stdout(), "ready: witness={}", running.address)?;
                io::stdout().flush()?;
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                running.stop();
                Ok(())
            })
        }
    }
}
