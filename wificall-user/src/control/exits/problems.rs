//! What is wrong with exits.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Exits;
use crate::steer::choice::Way;

impl Exits {
    /// What is wrong.
    pub(in crate::control) fn problems(&self) -> Vec<String> {
        let now = Instant::now();
        let mut problems: Vec<String> = self.problem.iter().cloned().collect();
        for running in self.machine.exits() {
            for side in &running.sides {
                let name = &running.exit.name;
                let none_of_family = side.candidates.is_empty();
                if let Some(way @ (Way::Direct | Way::Block)) = side.way
                    && !none_of_family
                {
                    let what = match way {
                        Way::Block => "its traffic is refused",
                        _ => "its traffic goes the box's own way",
                    };
                    problems.push(format!(
                        "exit `{name}`: no {} gateway is up: {what}",
                        side.family
                    ));
                }
                for candidate in &side.candidates {
                    let problem = candidate
                        .place
                        .as_ref()
                        .err()
                        .map(|nowhere| nowhere.text().to_owned());
                    let down = candidate.state(now) == crate::steer::health::State::Down;
                    problems.extend(problem.or_else(|| {
                        down.then(|| {
                            format!("exit `{name}`: {} is down", candidate.name(&running.exit))
                        })
                    }));
                }
            }
        }
        problems.extend(self.warnings.iter().cloned());
        problems.extend(self.advice.iter().cloned());
        problems.extend(self.unset.iter().cloned());
        problems.extend(self.untried.iter().map(|name| {
            format!(
                "exit `{name}`: IKE is tried with nobody: policies send no ePDG there whose address is known\n  hint: give \
                 `probe` in the exit"
            )
        }));
        let mut seen = BTreeSet::new();
        problems.retain(|problem| seen.insert(problem.clone()));
        problems
    }
}
