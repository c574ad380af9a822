//! Both sides speak arbitrary bytes, from the first packet on.

#![no_main]

use tidegate_wire_postgres::exercise::{Start, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(broken) = run(Start::Startup, data) {
        panic!("{broken}");
    }
});
