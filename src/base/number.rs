//! The 32-bit stored number: what a sample is, in every engine and on every path.
//!
//! Layout and rounding follow the databases specification, section 4: sign, multiply/divide, a 3-bit
//! exponent, the factor-100 bit, two flags and a 24-bit mantissa. A sample is packed once, at its origin;
//! every hop carries the unpacked value, and packing that again gives the same bits (a property test
//! below), so a value reads the same on the child, on every proxy and on every parent.

/// One stored sample: value and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sample(pub u32);

const NEGATIVE: u32 = 1 << 31;
const MULTIPLY: u32 = 1 << 30;
const EXPONENT_SHIFT: u32 = 27;
const FACTOR_100: u32 = 1 << 26;
const RESET: u32 = 1 << 25;
const NOT_ANOMALOUS: u32 = 1 << 24;
const MANTISSA: u32 = 0x00FF_FFFF;

const MANTISSA_MAX: f64 = 0x00FF_FFFF as f64;
/// Below this a mantissa can still take one more decimal digit.
const MANTISSA_GROW: f64 = 0x0019_999E as f64;

const POWERS_10: [f64; 8] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7];
const POWERS_100: [f64; 8] = [1e0, 1e2, 1e4, 1e6, 1e8, 1e10, 1e12, 1e14];

/// What a mantissa is multiplied by, indexed by the multiply bit, the exponent and the factor bit as they stand.
const FACTORS: [f64; 32] = {
    let mut factors = [0.0; 32];
    let mut i = 0;
    while i < 32 {
        let steps = (i >> 1) & 7;
        factors[i] = match (i & 16 != 0, i & 1 != 0) {
            (false, _) => 1.0 / POWERS_10[steps],
            (true, false) => POWERS_10[steps],
            (true, true) => POWERS_100[steps],
        };
        i += 1;
    }
    factors
};
const FACTOR_SHIFT: u32 = 26;

/// What travels beside the value of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleFlags {
    pub anomalous: bool,
    /// A counter was reset or overflowed in this slot.
    pub reset: bool,
}

impl Sample {
    /// A slot that holds no value.
    pub const EMPTY: Sample = Sample(FACTOR_100);

    /// Packs a value; NaN and infinities become [`Sample::EMPTY`].
    pub fn pack(value: f64, flags: SampleFlags) -> Sample {
        if !value.is_finite() {
            return Sample::EMPTY;
        }
        let mut bits = if flags.anomalous { 0 } else { NOT_ANOMALOUS };
        if flags.reset {
            bits |= RESET;
        }
        if value == 0.0 || value.is_subnormal() {
            return Sample(bits);
        }
        let mut n = value;
        if n < 0.0 {
            bits |= NEGATIVE;
            n = -n;
        }
        let mut factor = 10.0;
        if n / 1e7 > MANTISSA_MAX {
            factor = 100.0;
            bits |= FACTOR_100;
        }
        let mut steps = 0u32;
        if n > MANTISSA_MAX {
            while steps < 7 && n > MANTISSA_MAX {
                n /= factor;
                steps += 1;
            }
            bits |= MULTIPLY | (steps << EXPONENT_SHIFT);
            if n > MANTISSA_MAX {
                return Sample(bits | MANTISSA);
            }
        } else {
            while steps < 7 && n < MANTISSA_GROW {
                n *= 10.0;
                steps += 1;
            }
            if n > MANTISSA_MAX {
                n /= 10.0;
                steps -= 1;
            }
            bits |= steps << EXPONENT_SHIFT;
        }
        // n is within 0..=MANTISSA_MAX here, so the conversion is exact after rounding.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 <= n <= 2^24"
        )]
        let mantissa = round_half_even(n) as u32;
        Sample(bits | mantissa.min(MANTISSA))
    }

    /// A packed value that is neither anomalous nor a reset.
    pub fn normal(value: f64) -> Sample {
        Sample::pack(value, SampleFlags::default())
    }

    pub fn is_empty(self) -> bool {
        self == Sample::EMPTY
    }

    /// The value, `None` for an empty slot.
    pub fn value(self) -> Option<f64> {
        (!self.is_empty()).then(|| self.unpack())
    }

    /// The value of a sample that is known to hold one; NaN for an empty slot.
    #[inline]
    pub fn unpack(self) -> f64 {
        if self.is_empty() {
            return f64::NAN;
        }
        let mantissa = f64::from(self.0 & MANTISSA);
        let steps = ((self.0 >> EXPONENT_SHIFT) & 7) as usize;
        let n = if self.0 & MULTIPLY == 0 {
            mantissa / POWERS_10[steps]
        } else if self.0 & FACTOR_100 == 0 {
            mantissa * POWERS_10[steps]
        } else {
            mantissa * POWERS_100[steps]
        };
        if self.0 & NEGATIVE == 0 { n } else { -n }
    }

    /// The value as queries compute with it, NaN for an empty slot. The original multiplies the mantissa by the
    /// reciprocal power of ten, so 28 reads as 28.000000000000004: never seen in print, but it decides which values
    /// lie on the cut of a trimmed median and which equal a number.
    #[inline]
    pub fn reading(self) -> f64 {
        if self.is_empty() {
            return f64::NAN;
        }
        let factor = FACTORS[((self.0 >> FACTOR_SHIFT) & 0x1F) as usize];
        let n = f64::from(self.0 & MANTISSA) * factor;
        if self.0 & NEGATIVE == 0 { n } else { -n }
    }

    pub fn flags(self) -> SampleFlags {
        SampleFlags { anomalous: self.is_anomalous(), reset: self.is_reset() }
    }

    pub fn is_reset(self) -> bool {
        !self.is_empty() && self.0 & RESET != 0
    }

    pub fn is_anomalous(self) -> bool {
        !self.is_empty() && self.0 & NOT_ANOMALOUS == 0
    }
}

/// Round to nearest, ties to even, as the C library's default rounding mode does. For `0 <= n < 2^51`: beyond 2^52 a
/// double has no fraction left, so adding and taking away that much rounds, without a call into the C library.
#[inline]
fn round_half_even(n: f64) -> f64 {
    const SHIFT: f64 = (1u64 << 52) as f64;
    (n + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documented_bit_patterns() {
        for (value, bits) in [
            (1.0, 0x3998_9680),
            (2.0, 0x311E_8480),
            (17.0, 0x2919_F0A0),
            (-1.0, 0xB998_9680),
            (0.9, 0x3989_5440),
            (16_777_216.0, 0x4919_999A),
            (1e9, 0x5198_9680),
            (1e15, 0x6598_9680),
            (0.0, 0x0100_0000),
        ] {
            assert_eq!(Sample::normal(value).0, bits, "{value}: {:#x}", Sample::normal(value).0);
        }
        assert_eq!(Sample::normal(16_777_216.0).unpack(), 16_777_220.0);
        assert_eq!(Sample::normal(1e-8).unpack(), 0.0);
        assert_eq!(Sample::normal(f64::NAN), Sample::EMPTY);
        assert_eq!(Sample::normal(f64::INFINITY), Sample::EMPTY);
    }

    #[test]
    fn readings_multiply_by_the_reciprocal() {
        assert_eq!(Sample::normal(28.0).reading(), 28.000000000000004);
        assert_eq!(Sample::normal(-7.0).reading(), -7.0);
        assert_eq!(Sample::normal(1.5e18).reading(), 1.5e18);
        assert!(Sample::EMPTY.reading().is_nan());
    }

    proptest! {
        #[test]
        fn rounding_is_that_of_the_processor(n in 0.0..16_777_217.0f64, half in 0u32..16_777_216) {
            prop_assert_eq!(round_half_even(n), n.round_ties_even());
            let half = f64::from(half) + 0.5;
            prop_assert_eq!(round_half_even(half), half.round_ties_even());
        }

        #[test]
        fn a_reading_is_the_value_within_its_last_bit(bits: u32) {
            let (value, reading) = (Sample(bits).unpack(), Sample(bits).reading());
            prop_assert!(value.is_nan() && reading.is_nan() || (value - reading).abs() <= value.abs() * 4e-16);
        }

        #[test]
        fn packing_loses_less_than_one_in_a_million(value in -1e15f64..1e15) {
            let back = Sample::normal(value).unpack();
            prop_assert!((back - value).abs() <= value.abs() * 1e-6 + 1e-7, "{value} came back as {back}");
        }

        #[test]
        fn a_stored_value_packs_to_itself(value in proptest::num::f64::NORMAL, reset: bool, anomalous: bool) {
            let once = Sample::pack(value, SampleFlags { anomalous, reset });
            let again = Sample::pack(once.unpack(), once.flags());
            prop_assert_eq!(once.unpack().to_bits(), again.unpack().to_bits());
            if once.unpack() != 0.0 {
                prop_assert_eq!(once, again);
            }
        }

        #[test]
        fn whatever_the_bits_unpacking_gives_a_number(bits: u32) {
            let sample = Sample(bits);
            prop_assert!(sample.is_empty() || sample.unpack().is_finite());
        }
    }
}
