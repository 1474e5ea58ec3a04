//! What the programs cost a packet stays within `budgets.toml`: the quick run of `cargo xtask bench --layer program`.

use wificall_tests::bench::{
    Scale,
    budget::{self, verdicts},
    program,
    report::budget_table,
};

#[test]
fn costs() {
    let budgets = budget::budgets().unwrap();
    let rows = program::measure(Scale::Quick).unwrap();
    let verdicts = verdicts(&budgets, &rows).unwrap();
    println!("{}", budget_table(&verdicts));
    let failures = budget::check(&program::LAYER, Scale::Quick, &budgets, &verdicts).unwrap();
    assert!(
        failures.is_empty(),
        "{}\n{}",
        failures.join("\n"),
        budget::HINT
    );
}
