//! Every chore of the repository. `cargo xtask --help` lists them.
//!
//! A library as well as a program, so that the tests under `xtask/tests/` use the same laboratory
//! ([`lab`]) as `demo`, `bench`, `conformance` and `soak`.

pub mod bench;
pub mod conformance;
pub mod demo;
pub mod dist;
pub mod ebpf;
pub mod lab;
pub mod lint;
pub mod run;
pub mod setup;
pub mod soak;
pub mod test;
pub mod threats;
pub mod tidy;
pub mod vm;
