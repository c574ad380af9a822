//! Entry point of `tidegate-collector`.

fn main() -> std::process::ExitCode {
    tidegate_collector::cli::main()
}
