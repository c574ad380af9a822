//! When the machine says that nothing is under way.

use tidegate_wire_mysql::{ClientTls, Limits, ServerTls};

use super::script::{Driver, encode};

/// An OK packet that says that a transaction is open.
const OPEN: &str = "1[~~~\\x03~~~]";

#[test]
fn neither_a_command_nor_a_transaction_is_under_way() {
    let mut driver = Driver::new(ClientTls::Refuse, ServerTls::Off, Limits::default());
    for (client, line, idle) in [
        (false, "greet", false),
        (true, "hello(1,u,d)", false),
        (false, "ok(2)", true),
        (true, "q(CREATE VIEW)", false),
        (false, "ok(1)", true),
        (true, "q(BEGIN)", false),
        (false, OPEN, false),
        (true, "q(SELECT 1)", false),
        // An error says nothing of the transaction.
        (false, "err(1)", false),
        (true, "q(COMMIT)", false),
        (false, "ok(1)", true),
        (true, "q(SELECT 1; INSERT 2)", false),
        (false, "more(1)", false),
        (false, "ok(2)", true),
    ] {
        if client {
            driver.client_says(&encode(line));
        } else {
            driver.server_says(&encode(line));
        }
        assert_eq!(driver.is_idle(), idle, "after {line}");
    }
}
