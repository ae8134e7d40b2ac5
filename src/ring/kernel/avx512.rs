// Pure: no runtime, no clock, no socket, no random numbers.

//! Sixteen lanes; rotation and each function of a round are one instruction.

use std::arch::x86_64::*;

use super::{
    block::{BLOCK, Block, Points, UUID},
    message, steps,
};

type Vector = __m512i;

kernel!("avx512f", 16);

#[inline]
#[target_feature(enable = "avx512f")]
fn splat(value: u32) -> Vector {
    _mm512_set1_epi32(value.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: Vector, b: Vector) -> Vector {
    _mm512_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn or(a: Vector, b: Vector) -> Vector {
    _mm512_or_si512(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn rotate<const LEFT: i32, const RIGHT: i32>(a: Vector) -> Vector {
    _mm512_rol_epi32::<LEFT>(a)
}

/// The bits of `c` where `b` has ones, those of `d` elsewhere.
#[inline]
#[target_feature(enable = "avx512f")]
fn choose(b: Vector, c: Vector, d: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0xca>(b, c, d)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn f(sum: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    add(sum, choose(b, c, d))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn g(sum: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    f(sum, d, b, c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn h(sum: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    add(sum, _mm512_ternarylogic_epi32::<0x96>(b, c, d))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn i(sum: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    add(sum, _mm512_ternarylogic_epi32::<0x39>(b, c, d))
}

/// The first, second, third and fourth words of all rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn columns(row: impl Fn(usize) -> u128) -> [Vector; 4] {
    let (a, b, c, d) = (four(&row, 0), four(&row, 1), four(&row, 2), four(&row, 3));
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Every fourth row.
#[inline]
#[target_feature(enable = "avx512f")]
fn four(row: impl Fn(usize) -> u128, from: usize) -> Vector {
    let vector = _mm512_castsi128_si512(one(row(from)));
    let vector = _mm512_inserti32x4::<1>(vector, one(row(from + 4)));
    let vector = _mm512_inserti32x4::<2>(vector, one(row(from + 8)));
    _mm512_inserti32x4::<3>(vector, one(row(from + 12)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn one(row: u128) -> __m128i {
    _mm_set_epi64x((row >> 64) as i64, row as i64)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(lanes: &[u32; LANES]) -> Vector {
    let l = lanes.map(u32::cast_signed);
    _mm512_setr_epi32(
        l[0], l[1], l[2], l[3], l[4], l[5], l[6], l[7], l[8], l[9], l[10], l[11], l[12], l[13], l[14], l[15],
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
fn unload(vector: Vector, lanes: &mut [u32; LANES]) {
    let quarters = [
        _mm512_castsi512_si128(vector),
        _mm512_extracti32x4_epi32::<1>(vector),
        _mm512_extracti32x4_epi32::<2>(vector),
        _mm512_extracti32x4_epi32::<3>(vector),
    ];
    for (lanes, quarter) in lanes.as_chunks_mut::<4>().0.iter_mut().zip(quarters) {
        let (low, high) = (_mm_cvtsi128_si64(quarter), _mm_extract_epi64::<1>(quarter));
        *lanes = [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32];
    }
}
