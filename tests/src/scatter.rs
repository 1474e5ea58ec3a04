//! Addresses in no order: what stands at even distances fills a hash table evenly, as no real addresses do.

/// Another number below 2^`bits` for each number below it, always the same: shifts and odd factors lose nothing.
///
/// # Panics
///
/// If `index` has more bits.
#[must_use]
pub fn scattered(index: u32, bits: u32) -> u32 {
    let mask = u32::MAX >> (u32::BITS - bits);
    assert!(index <= mask, "{index} has more than {bits} bits");
    let half = bits.div_ceil(2);
    // Those of MurmurHash3's finaliser.
    let mixed = [0x85eb_ca6b_u32, 0xc2b2_ae35]
        .iter()
        .fold(index, |number, factor| {
            (number ^ number >> half).wrapping_mul(*factor) & mask
        });
    mixed ^ mixed >> half
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_number_is_met_once_and_none_is_near_the_next() {
        for bits in [15, 16] {
            let all: Vec<_> = (0..1 << bits).map(|index| scattered(index, bits)).collect();
            let distinct: BTreeSet<_> = all.iter().copied().collect();
            assert_eq!(distinct.len(), 1 << bits);
            assert_eq!(distinct.last(), Some(&((1 << bits) - 1)));
            // Even distances would be a few.
            let distances: BTreeSet<_> =
                all.windows(2).map(|two| two[0].abs_diff(two[1])).collect();
            assert!(distances.len() > 1 << (bits - 3), "{}", distances.len());
        }
    }
}
