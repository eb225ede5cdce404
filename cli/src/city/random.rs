//! Reproducible chance for the simulator.
//!
//! Not for secrets, and not the `rand` crate: that one promises no stability of its generators between versions, and a
//! seed here has to give the same city for ever. The generator is SplitMix64 (Steele, Lea, Flood 2014). No function of
//! the standard library that differs between platforms is used (no `sin`, `exp`, `ln`): the normal distribution is a
//! sum of uniform ones. So a seed gives the same bytes on any machine.

/// A stream of pseudo-random numbers.
#[derive(Debug, Clone)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// The stream of `seed` for one `purpose`; streams of different purposes are unrelated.
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        let mut state = mix(seed);
        for byte in purpose.bytes() {
            state = mix(state ^ u64::from(byte));
        }
        Self { state }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in `0.0..1.0`.
    pub(super) fn unit(&mut self) -> f64 {
        to_unit(self.next())
    }

    /// Uniform in `low..high`.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..bound`; 0 when `bound` is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        // Lemire's multiply-shift: the bias is below 2^-40 for the bounds of a city.
        let product = u128::from(self.next()) * bound as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// True with probability `share`.
    pub(super) fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// About normally distributed, mean 0, standard deviation 1, never beyond ±3.47.
    pub(super) fn normal(&mut self) -> f64 {
        let sum = self.unit() + self.unit() + self.unit() + self.unit();
        (sum - 2.0) * 3.0_f64.sqrt()
    }

    /// `count` pseudo-random bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// The number of events in a step in which `mean` are expected: its whole part, plus one with the rest's chance.
    pub(super) fn arrivals(&mut self, mean: f64) -> usize {
        let whole = mean.max(0.0).floor();
        let more = self.chance(mean - whole);
        whole as usize + usize::from(more)
    }
}

/// A uniform number in `0.0..1.0` that belongs to `index` for ever: the same without any state.
pub(super) fn fixed(seed: u64, index: i64) -> f64 {
    to_unit(mix(mix(seed) ^ (index as u64).wrapping_mul(GOLDEN)))
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn to_unit(value: u64) -> f64 {
    (value >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_purpose_give_the_same_numbers() {
        let take = |seed, purpose| {
            let mut random = Random::new(seed, purpose);
            (0..8).map(|_| random.next()).collect::<Vec<_>>()
        };
        assert_eq!(take(1, "traffic"), take(1, "traffic"));
        assert_ne!(take(1, "traffic"), take(2, "traffic"));
        assert_ne!(take(1, "traffic"), take(1, "energy"));
    }

    #[test]
    fn splitmix64_gives_its_published_sequence() {
        // The first three outputs for the state 1234567, as in the algorithm's reference test.
        let mut random = Random { state: 1_234_567 };
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        assert_eq!(random.next(), 9_817_491_932_198_370_423);
    }

    #[test]
    fn distributions_have_their_means() {
        let mut random = Random::new(7, "means");
        let count = 40_000;
        let mean = |sum: f64| sum / f64::from(count);
        let unit = mean((0..count).map(|_| random.unit()).sum());
        let normal = mean((0..count).map(|_| random.normal()).sum());
        let square = mean((0..count).map(|_| random.normal()).map(|x| x * x).sum());
        let arrivals = mean((0..count).map(|_| random.arrivals(2.3) as f64).sum());
        let chance = mean((0..count).map(|_| f64::from(u8::from(random.chance(0.1)))).sum());
        assert!((unit - 0.5).abs() < 0.01, "{unit}");
        assert!(normal.abs() < 0.02, "{normal}");
        assert!((square - 1.0).abs() < 0.03, "{square}");
        assert!((arrivals - 2.3).abs() < 0.02, "{arrivals}");
        assert!((chance - 0.1).abs() < 0.01, "{chance}");
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
        assert_eq!(random.bytes(5).len(), 5);
        assert_eq!(fixed(3, -4), fixed(3, -4));
    }
}
