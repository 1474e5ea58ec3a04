//! Which way an exit's packets take.

use super::health::State;
use super::{Exit, WhenDown, WhenNone};

/// The way of one exit and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// By the gateway of this place among the exit's of this family; of an exit without gateways, by its device (0).
    By(usize),
    /// As they would go without us.
    Direct,
    /// Nowhere.
    Block,
}

/// The way to take, from what is known of the gateways (in order of preference), the way in use and whether tunnels are
/// active in it.
///
/// A gateway in use is left only when it is down; or for a better one that is up while nobody would notice. Where there was
/// none, the first that is up is used at once, and one that nothing is known of is not; before the first choice it is.
#[must_use]
pub fn choose(exit: &Exit, gateways: &[State], current: Option<Way>, active: bool) -> Way {
    // Where the next one is not to take over, the others are not for it.
    let gateways = match exit.when_down {
        WhenDown::Next => gateways,
        WhenDown::Direct | WhenDown::Block => &gateways[..gateways.len().min(1)],
    };
    let had_none = matches!(current, Some(Way::Direct | Way::Block));
    let up = gateways.iter().position(|state| *state == State::Up);
    let untried = gateways.iter().position(|state| match state {
        State::Due => true,
        State::Unknown => !had_none,
        State::Up | State::Down => false,
    });
    let Some(best) = up.or(untried) else {
        return none(exit);
    };
    match current {
        Some(Way::By(used)) if gateways.get(used).is_some_and(|s| *s != State::Down) => {
            let better = best < used && gateways[best] == State::Up;
            Way::By(if better && !active { best } else { used })
        }
        _ => Way::By(best),
    }
}

/// The way where no gateway is up, or there is none of the family.
#[must_use]
pub const fn none(exit: &Exit) -> Way {
    match (exit.when_down, exit.when_none) {
        (WhenDown::Direct, _) | (WhenDown::Next, WhenNone::Direct) => Way::Direct,
        (WhenDown::Block, _) | (WhenDown::Next, WhenNone::Block) => Way::Block,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    use State::{Down, Due, Unknown, Up};
    use Way::{Block, By, Direct};

    fn exit(when_down: WhenDown, when_none: WhenNone) -> Exit {
        Exit {
            when_down,
            when_none,
            ..sample::exit()
        }
    }

    #[test]
    fn the_next_takes_over_and_the_first_returns_when_nobody_notices() {
        let exit = exit(WhenDown::Next, WhenNone::Direct);
        let choose = |states: &[State], current, active| choose(&exit, states, current, active);
        assert_eq!(choose(&[Unknown, Unknown], None, false), By(0));
        assert_eq!(
            choose(&[Unknown, Up], None, false),
            By(1),
            "one that is known to work"
        );
        assert_eq!(
            choose(&[Unknown, Up], Some(By(0)), false),
            By(0),
            "not yet down"
        );
        assert_eq!(choose(&[Down, Up], Some(By(0)), true), By(1));
        assert_eq!(
            choose(&[Up, Up], Some(By(1)), true),
            By(1),
            "a call is not moved"
        );
        assert_eq!(choose(&[Up, Up], Some(By(1)), false), By(0));
        assert_eq!(choose(&[Unknown, Up], Some(By(1)), false), By(1));
        assert_eq!(choose(&[Up, Down], Some(By(1)), true), By(0));
        assert_eq!(choose(&[Down, Down], Some(By(1)), true), Direct);
        assert_eq!(choose(&[Up, Down], Some(Direct), true), By(0));
        assert_eq!(
            choose(&[Unknown, Unknown], Some(Direct), false),
            Direct,
            "nothing is known of them yet"
        );
        assert_eq!(choose(&[Unknown, Up], Some(Direct), true), By(1));
        assert_eq!(
            choose(&[Down, Due], Some(Direct), true),
            By(1),
            "nobody else can tell"
        );
        assert_eq!(choose(&[], None, false), Direct);
        assert_eq!(
            choose(&[Up], Some(By(4)), true),
            By(0),
            "one that is no more"
        );
    }

    #[test]
    fn none_left_blocks_where_that_is_asked_for_and_ends_at_once() {
        let exit = exit(WhenDown::Next, WhenNone::Block);
        assert_eq!(choose(&exit, &[Down, Down], Some(By(0)), true), Block);
        assert_eq!(choose(&exit, &[Unknown, Down], Some(Block), true), Block);
        assert_eq!(choose(&exit, &[Down, Up], Some(Block), true), By(1));
        assert_eq!(
            choose(&exit, &[], None, true),
            Block,
            "of the other family neither"
        );
        assert_eq!(
            choose(&exit, &[Up], Some(Direct), true),
            By(0),
            "it was direct before a reload"
        );
    }

    #[test]
    fn direct_and_block_know_no_next() {
        let direct = exit(WhenDown::Direct, WhenNone::Block);
        let block = exit(WhenDown::Block, WhenNone::Direct);
        assert_eq!(choose(&direct, &[Down, Up], Some(By(0)), true), Direct);
        assert_eq!(choose(&block, &[Down, Up], Some(By(0)), true), Block);
        assert_eq!(choose(&block, &[Up, Up], Some(Block), true), By(0));
        assert_eq!(choose(&direct, &[Up, Up], Some(By(1)), true), By(0));
    }
}
