// Pure: no runtime, no clock, no socket, no random numbers.

//! Four lanes, which every x86-64 processor has.

use std::arch::x86_64::*;

use super::{
    block::{BLOCK, Block, Points, UUID},
    message, steps,
};

type Vector = __m128i;

kernel!("sse2", 4);

#[inline]
#[target_feature(enable = "sse2")]
fn splat(value: u32) -> Vector {
    _mm_set1_epi32(value.cast_signed())
}

#[inline]
#[target_feature(enable = "sse2")]
fn add(a: Vector, b: Vector) -> Vector {
    _mm_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "sse2")]
fn or(a: Vector, b: Vector) -> Vector {
    _mm_or_si128(a, b)
}

#[inline]
#[target_feature(enable = "sse2")]
fn rotate<const LEFT: i32, const RIGHT: i32>(a: Vector) -> Vector {
    _mm_or_si128(_mm_slli_epi32::<LEFT>(a), _mm_srli_epi32::<RIGHT>(a))
}

/// The bits of `c` where `b` has ones, those of `d` elsewhere.
#[inline]
#[target_feature(enable = "sse2")]
fn choose(b: Vector, c: Vector, d: Vector) -> Vector {
    _mm_xor_si128(d, _mm_and_si128(b, _mm_xor_si128(c, d)))
}

#[inline]
#[target_feature(enable = "sse2")]
fn f(sum: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    add(sum, choose(b, c, d))
}

#[inline]
#[target_feature(enable = "sse2")]
fn g(sum: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    add(add(sum, _mm_andnot_si128(d, c)), _mm_and_si128(b, d))
}

#[inline]
#[target_feature(enable = "sse2")]
fn h(sum: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    add(sum, _mm_xor_si128(b, _mm_xor_si128(c, d)))
}

#[inline]
#[target_feature(enable = "sse2")]
fn i(sum: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    add(sum, _mm_xor_si128(c, _mm_or_si128(b, _mm_xor_si128(d, splat(u32::MAX)))))
}

/// The first, second, third and fourth words of all rows.
#[inline]
#[target_feature(enable = "sse2")]
fn columns(row: impl Fn(usize) -> u128) -> [Vector; 4] {
    let one = |row: u128| _mm_set_epi64x((row >> 64) as i64, row as i64);
    let (a, b, c, d) = (one(row(0)), one(row(1)), one(row(2)), one(row(3)));
    let (ab, cd) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
    [
        _mm_unpacklo_epi64(ab, cd),
        _mm_unpackhi_epi64(ab, cd),
        _mm_unpacklo_epi64(ab_high, cd_high),
        _mm_unpackhi_epi64(ab_high, cd_high),
    ]
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(lanes: &[u32; LANES]) -> Vector {
    let [a, b, c, d] = lanes.map(u32::cast_signed);
    _mm_setr_epi32(a, b, c, d)
}

#[inline]
#[target_feature(enable = "sse2")]
fn unload(vector: Vector, lanes: &mut [u32; LANES]) {
    let (low, high) = (_mm_cvtsi128_si64(vector), _mm_cvtsi128_si64(_mm_unpackhi_epi64(vector, vector)));
    *lanes = [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32];
}
