//! The agent's program; all of it is in the library, so that its parts can be tested.

fn main() -> std::process::ExitCode {
    tidegate_agent::cli::main()
}
