//! The targets of `cargo xtask fuzz` over their seeds and a fixed run of mutations: whatever was found once stays found.

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use anyhow::Result;
use wificall_tests::seeds::seeds;

/// Mutations of each target.
const RUNS: u32 = 3_000;

/// xorshift64, always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound.max(1)
    }

    /// One of `seeds` with one to eight changes.
    fn mutated(&mut self, seeds: &[(String, Vec<u8>)]) -> Vec<u8> {
        const WORDS: [u32; 8] = [0, 1, 4, 0xff, 0x7fff_ffff, 0x8000_0000, u32::MAX, 262_145];
        let mut bytes = seeds[self.below(seeds.len())].1.clone();
        for _ in 0..1 + self.below(8) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 => bytes.truncate(at),
                1 => {
                    let word = WORDS[self.below(WORDS.len())].to_le_bytes();
                    let end = bytes.len().min(at + 4);
                    bytes[at..end].copy_from_slice(&word[..end - at]);
                }
                2 => {
                    let word = WORDS[self.below(WORDS.len())].to_be_bytes();
                    let end = bytes.len().min(at + 4);
                    bytes[at..end].copy_from_slice(&word[..end - at]);
                }
                3 => {
                    // A piece of another one.
                    let other = &seeds[self.below(seeds.len())].1;
                    let from = self.below(other.len());
                    let to = (from + self.below(200)).min(other.len());
                    bytes.splice(at..at, other[from..to].iter().copied());
                }
                4 => {
                    let end = (at + self.below(64)).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
        bytes
    }
}

#[test]
fn nothing_that_is_read_is_believed() -> Result<()> {
    for (name, target) in targets::ALL {
        let seeds = seeds(name)?;
        for (_, seed) in &seeds {
            target(seed);
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..RUNS {
            target(&random.mutated(&seeds));
        }
        println!("{name}: {} seeds and {RUNS} mutations", seeds.len());
    }
    Ok(())
}
