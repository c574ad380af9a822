//! The short forms of the long proofs (`cargo xtask soak`), by a fixed seed.

use xtask::soak::{Proof, prove};

#[test]
fn what_the_server_executed_has_its_record_although_the_agent_is_killed() {
    prove(Proof::Kills, true, 1).unwrap();
}

#[test]
fn a_collector_that_is_away_under_load_gets_everything_once_and_in_order() {
    prove(Proof::Outage, true, 1).unwrap();
}

#[test]
fn a_large_result_passes_masked_in_constant_memory() {
    prove(Proof::Bulk, true, 1).unwrap();
}
