//! Both sides speak arbitrary bytes, from the greeting on.

#![no_main]

use tidegate_wire_mysql::exercise::{Start, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(broken) = run(Start::Greeting, data) {
        panic!("{broken}");
    }
});
