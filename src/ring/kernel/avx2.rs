// Pure: no runtime, no clock, no socket, no random numbers.

//! Eight lanes.

use std::arch::x86_64::*;

use super::{
    block::{BLOCK, Block, Points, UUID},
    message, steps,
};

type Vector = __m256i;

kernel!("avx2", 8);

#[inline]
#[target_feature(enable = "avx2")]
fn splat(value: u32) -> Vector {
    _mm256_set1_epi32(value.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(a: Vector, b: Vector) -> Vector {
    _mm256_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn or(a: Vector, b: Vector) -> Vector {
    _mm256_or_si256(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate<const LEFT: i32, const RIGHT: i32>(a: Vector) -> Vector {
    _mm256_or_si256(_mm256_slli_epi32::<LEFT>(a), _mm256_srli_epi32::<RIGHT>(a))
}

/// The bits of `c` where `b` has ones, those of `d` elsewhere.
#[inline]
#[target_feature(enable = "avx2")]
fn choose(b: Vector, c: Vector, d: Vector) -> Vector {
    _mm256_xor_si256(d, _mm256_and_si256(b, _mm256_xor_si256(c, d)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn f(sum: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    add(sum, choose(b, c, d))
}

#[inline]
#[target_feature(enable = "avx2")]
fn g(sum: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    add(add(sum, _mm256_andnot_si256(d, c)), _mm256_and_si256(b, d))
}

#[inline]
#[target_feature(enable = "avx2")]
fn h(sum: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    add(sum, _mm256_xor_si256(b, _mm256_xor_si256(c, d)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn i(sum: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    add(sum, _mm256_xor_si256(c, _mm256_or_si256(b, _mm256_xor_si256(d, splat(u32::MAX)))))
}

/// The first, second, third and fourth words of all rows.
#[inline]
#[target_feature(enable = "avx2")]
fn columns(row: impl Fn(usize) -> u128) -> [Vector; 4] {
    let (a, b, c, d) = (two(&row, 0), two(&row, 1), two(&row, 2), two(&row, 3));
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Every fourth row.
#[inline]
#[target_feature(enable = "avx2")]
fn two(row: impl Fn(usize) -> u128, from: usize) -> Vector {
    let (low, high) = (row(from), row(from + 4));
    _mm256_set_epi64x((high >> 64) as i64, high as i64, (low >> 64) as i64, low as i64)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(lanes: &[u32; LANES]) -> Vector {
    let l = lanes.map(u32::cast_signed);
    _mm256_setr_epi32(l[0], l[1], l[2], l[3], l[4], l[5], l[6], l[7])
}

#[inline]
#[target_feature(enable = "avx2")]
fn unload(vector: Vector, lanes: &mut [u32; LANES]) {
    let halves = [_mm256_castsi256_si128(vector), _mm256_extracti128_si256::<1>(vector)];
    for (lanes, half) in lanes.as_chunks_mut::<4>().0.iter_mut().zip(halves) {
        let (low, high) = (_mm_cvtsi128_si64(half), _mm_extract_epi64::<1>(half));
        *lanes = [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32];
    }
}
