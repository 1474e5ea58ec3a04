//! What the programs cost a packet stays within `budgets.toml`: the quick run of `cargo xtask bench --layer program`.

use wificall_tests::bench::{
    Scale,
    budget::{self, Outcome, verdicts},
    program,
    report::budget_table,
};

/// Tests run on machines that do other things as well: a few paths may stay unclear, which `cargo xtask bench --check`
/// does not let pass. What is past its budget for sure fails, and so do figures that say nothing.
#[test]
fn costs() {
    let budgets = budget::budgets().unwrap();
    let rows = program::measure(Scale::Quick).unwrap();
    let verdicts = verdicts(&budgets, &rows).unwrap();
    println!("{}", budget_table(&verdicts));
    let failures =
        budget::check(&program::LAYER, Scale::Quick, &budgets, vec![rows.clone()]).unwrap();
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    let past = failures
        .iter()
        .any(|failure| failure.outcome == Outcome::Past);
    let too_noisy = 2 * failures.len() > verdicts.len();
    assert!(
        !past && !too_noisy,
        "{}\n{}",
        texts.join("\n"),
        budget::HINT
    );
    println!("{} paths unclear\n{}", texts.len(), texts.join("\n"));
}
