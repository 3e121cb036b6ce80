//! Sixteen numbers at a time. In: numbers of 8, 16 and 32 bits. Out: their f32, sums and products, the same bits on every machine.

use burn::tensor::f16;

use crate::ops::simd::vectorized;

/// Values that are widened and summed side by side, on every machine.
pub(super) const LANES: usize = 16;

/// The bytes of a number of 16 bits.
pub(super) type Half = [u8; 2];
/// The byte of a whole number with a sign.
pub(super) type Byte = [u8; 1];

/// Work in vectors of some kind.
pub(super) trait Work {
    type Output;

    /// To be inlined, and so what it calls.
    fn on<S: Sixteen>(self, vectors: S) -> Self::Output;
}

/// Does it with the best instructions of this machine.
pub(super) fn run<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
        // SAFETY: the machine has both.
        return unsafe { x86::run(work) };
    }
    run_plain(work)
}

/// Does it on any machine.
pub(super) fn run_plain<W: Work>(work: W) -> W::Output {
    vectorized(
        #[inline(always)]
        || work.on(Plain),
    )
}

/// Sixteen numbers at a time: the same operations on each of them, without fused multiplication, so that every machine gets
/// the same bits.
pub(super) trait Sixteen: Copy {
    type Values: Copy;

    fn load(self, values: &[f32; LANES]) -> Self::Values;

    fn store(self, values: Self::Values) -> [f32; LANES];

    fn widen<const BF16: bool>(self, halves: &[Half; LANES]) -> Self::Values;

    /// Of whole numbers.
    fn whole(self, bytes: &[Byte; LANES]) -> Self::Values;

    /// To the nearest f16.
    fn narrow(self, values: &[f32; LANES]) -> [u16; LANES];

    fn product(self, a: Self::Values, b: Self::Values) -> Self::Values;

    /// `sums + x * weights`
    fn add_product(
        self,
        sums: Self::Values,
        x: Self::Values,
        weights: Self::Values,
    ) -> Self::Values;
}

/// For any machine.
#[derive(Clone, Copy)]
struct Plain;

impl Sixteen for Plain {
    type Values = [f32; LANES];

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> [f32; LANES] {
        *values
    }

    #[inline(always)]
    fn store(self, values: [f32; LANES]) -> [f32; LANES] {
        values
    }

    #[inline(always)]
    fn widen<const BF16: bool>(self, halves: &[Half; LANES]) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        for lane in 0..LANES {
            let half = u16::from_ne_bytes(halves[lane]);
            values[lane] = if BF16 {
                f32::from_bits(u32::from(half) << 16)
            } else {
                of_f16(half)
            };
        }
        values
    }

    #[inline(always)]
    fn whole(self, bytes: &[Byte; LANES]) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        for lane in 0..LANES {
            values[lane] = f32::from(i8::from_ne_bytes(bytes[lane]));
        }
        values
    }

    #[inline(always)]
    fn narrow(self, values: &[f32; LANES]) -> [u16; LANES] {
        values.map(|value| f16::from_f32(value).to_bits())
    }

    #[inline(always)]
    fn product(self, mut a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        for lane in 0..LANES {
            a[lane] *= b[lane];
        }
        a
    }

    #[inline(always)]
    fn add_product(
        self,
        mut sums: [f32; LANES],
        x: [f32; LANES],
        weights: [f32; LANES],
    ) -> [f32; LANES] {
        for lane in 0..LANES {
            sums[lane] += x[lane] * weights[lane];
        }
        sums
    }
}

/// The f32 of the same value.
#[inline(always)]
fn of_f16(half: u16) -> f32 {
    // With the exponent where an f32 has its own, and counted from there: 2^112 too small.
    const LARGER: f32 = f32::from_bits((127 + 112) << 23);
    const INFINITY: u32 = 0x7f80_0000;
    let (sign, size) = (u32::from(half >> 15) << 31, u32::from(half & 0x7fff) << 13);
    let size = if half & 0x7c00 == 0x7c00 {
        size | INFINITY
    } else {
        (f32::from_bits(size) * LARGER).to_bits()
    };
    f32::from_bits(sign | size)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::{Byte, Half, LANES, Sixteen, Work};

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn run<W: Work>(work: W) -> W::Output {
        work.on(Avx2)
    }

    /// For [`run`] alone.
    #[derive(Clone, Copy)]
    struct Avx2;

    // SAFETY of all of it: only `run` makes one, and has the instructions; arrays are as long as what they become.
    impl Sixteen for Avx2 {
        type Values = [__m256; 2];

        #[inline(always)]
        fn load(self, values: &[f32; LANES]) -> [__m256; 2] {
            // By value: a load through a pointer is a call that checks it, in builds with assertions.
            unsafe { transmute(*values) }
        }

        #[inline(always)]
        fn store(self, values: [__m256; 2]) -> [f32; LANES] {
            unsafe { transmute(values) }
        }

        #[inline(always)]
        fn widen<const BF16: bool>(self, halves: &[Half; LANES]) -> [__m256; 2] {
            unsafe {
                let [low, high]: [__m128i; 2] = transmute(*halves);
                if !BF16 {
                    return [_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)];
                }
                let [low, high] = [_mm256_cvtepu16_epi32(low), _mm256_cvtepu16_epi32(high)];
                let [low, high] = [_mm256_slli_epi32::<16>(low), _mm256_slli_epi32::<16>(high)];
                [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
            }
        }

        #[inline(always)]
        fn whole(self, bytes: &[Byte; LANES]) -> [__m256; 2] {
            unsafe {
                let bytes: __m128i = transmute(*bytes);
                let low = _mm256_cvtepi8_epi32(bytes);
                let high = _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes));
                [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
            }
        }

        #[inline(always)]
        fn narrow(self, values: &[f32; LANES]) -> [u16; LANES] {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
            unsafe {
                let [low, high] = self.load(values);
                let low = _mm256_cvtps_ph::<NEAREST>(low);
                transmute([low, _mm256_cvtps_ph::<NEAREST>(high)])
            }
        }

        #[inline(always)]
        fn product(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn add_product(
            self,
            sums: [__m256; 2],
            x: [__m256; 2],
            weights: [__m256; 2],
        ) -> [__m256; 2] {
            unsafe {
                [
                    _mm256_add_ps(sums[0], _mm256_mul_ps(x[0], weights[0])),
                    _mm256_add_ps(sums[1], _mm256_mul_ps(x[1], weights[1])),
                ]
            }
        }
    }
}
