//! Both sides speak arbitrary bytes, in a compressed session.

#![no_main]

use tidegate_wire_mysql::exercise::{Start, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(broken) = run(Start::Packed, data) {
        panic!("{broken}");
    }
});
