//! Rows and COPY data of any bytes go through the rewriters.

#![no_main]

use tidegate_wire_postgres::exercise::rewrite;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(broken) = rewrite(data) {
        panic!("{broken}");
    }
});
