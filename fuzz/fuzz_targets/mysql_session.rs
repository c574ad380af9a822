//! Both sides speak arbitrary bytes, in a session whose login is done.

#![no_main]

use tidegate_wire_mysql::exercise::{Start, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(broken) = run(Start::Session, data) {
        panic!("{broken}");
    }
});
