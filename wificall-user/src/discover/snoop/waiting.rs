//! What was asked and may be answered for a short while. Bounded: the oldest makes room.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Answers taken to one question. Not one alone: whoever answers first need not be who was asked, and must not keep the
/// real answer out.
const ANSWERS: u8 = 4;

/// Questions on their way, by what their answers have to agree with.
#[derive(Debug)]
pub(super) struct Waiting<K, V> {
    open: HashMap<K, Open<V>>,
    /// By time. A question that was asked again stands here more than once, and only the last counts.
    order: VecDeque<(u64, K)>,
    /// Nanoseconds that an answer is waited for.
    patience: u64,
    limit: usize,
    /// Questions that made room for others.
    displaced: u64,
}

#[derive(Debug)]
struct Open<V> {
    at: u64,
    answers: u8,
    value: V,
}

impl<K: Clone + Eq + Hash, V> Waiting<K, V> {
    pub fn new(patience: u64, limit: usize) -> Self {
        Self {
            open: HashMap::new(),
            order: VecDeque::new(),
            patience,
            limit,
            displaced: 0,
        }
    }

    /// Notes a question that was asked at `at`.
    pub fn ask(&mut self, key: K, value: V, at: u64) {
        self.forget(at);
        while self.order.len() >= self.limit {
            self.displaced += u64::from(self.drop_first());
        }
        let open = Open {
            at,
            answers: 0,
            value,
        };
        self.open.insert(key.clone(), open);
        self.order.push_back((at, key));
    }

    /// The question that an answer of `at` belongs to, if there is one that still waits.
    pub fn answer(&mut self, key: &K, at: u64) -> Option<&V> {
        self.forget(at);
        let open = self.open.get_mut(key)?;
        // An event of another CPU may come in a little before its time.
        if at.saturating_sub(open.at) > self.patience || open.answers >= ANSWERS {
            return None;
        }
        open.answers += 1;
        Some(&open.value)
    }

    /// Questions that wait.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Questions that made room for others, since the start.
    pub fn displaced(&self) -> u64 {
        self.displaced
    }

    fn forget(&mut self, now: u64) {
        while let Some((at, _)) = self.order.front()
            && now.saturating_sub(*at) > self.patience
        {
            self.drop_first();
        }
    }

    /// Whether that was a question that had not been asked again.
    fn drop_first(&mut self) -> bool {
        let Some((at, key)) = self.order.pop_front() else {
            return false;
        };
        let last = self.open.get(&key).is_some_and(|open| open.at == at);
        if last {
            self.open.remove(&key);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_belongs_to_a_question_of_the_last_while() {
        let mut waiting = Waiting::new(100, 10);
        waiting.ask("a", 1, 1000);
        assert_eq!(waiting.answer(&"b", 1001), None);
        assert_eq!(waiting.answer(&"a", 1100), Some(&1));
        assert_eq!(waiting.answer(&"a", 1101), None);
        // Asked again, it waits again.
        waiting.ask("a", 2, 1200);
        waiting.ask("a", 3, 1250);
        assert_eq!(waiting.answer(&"a", 1345), Some(&3));
        assert_eq!(waiting.answer(&"a", 1351), None);
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn a_question_takes_a_few_answers() {
        let mut waiting = Waiting::new(100, 10);
        waiting.ask("a", (), 0);
        let taken = (0..10)
            .filter(|_| waiting.answer(&"a", 1).is_some())
            .count();
        assert_eq!(taken, usize::from(ANSWERS));
    }

    #[test]
    fn the_oldest_makes_room_and_nothing_grows() {
        let mut waiting = Waiting::new(u64::MAX, 4);
        for number in 0..100_000 {
            waiting.ask(number % 50_000, (), number);
            assert!(waiting.len() <= 4 && waiting.order.len() <= 4);
        }
        assert_eq!(waiting.displaced(), 100_000 - 4);
        assert_eq!(waiting.answer(&49_999, 100_000), Some(&()));
        assert_eq!(waiting.answer(&49_995, 100_000), None);
        // The same question over and over.
        for number in 0..1000 {
            waiting.ask(7, (), 200_000 + number);
        }
        assert!(waiting.len() <= 4 && waiting.order.len() <= 4);
        assert_eq!(waiting.answer(&7, 201_000), Some(&()));
    }
}
