//! What the programs cost a packet stays within `budgets.toml`: the quick run of `cargo xtask bench --layer program`.

use wificall_tests::bench::{
    Scale,
    budget::{self, Outcome, verdicts},
    program,
    report::budget_table,
};

/// Past its budget, for a test, is what is this much past it for sure. Tests run on machines that do other things as well,
/// whose caches are not the test's alone: a match then costs up to 1.4 times what its baseline's slowness explains.
/// `cargo xtask bench --check`, on a machine that is quiet, asks for the budget itself; what a program grows by is seen in
/// its instructions, which are compared exactly.
const NOISE: f64 = 1.5;

/// Paths may stay unclear, which `cargo xtask bench --check` does not let pass; figures that say nothing fail.
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
        .any(|failure| failure.outcome == Outcome::Past && failure.share > NOISE);
    let told = verdicts.len() - failures.len();
    let too_noisy = told < verdicts.len() / 10;
    assert!(
        !past && !too_noisy,
        "{}\n{}",
        texts.join("\n"),
        budget::HINT
    );
    println!("{} paths not kept\n{}", texts.len(), texts.join("\n"));
}
