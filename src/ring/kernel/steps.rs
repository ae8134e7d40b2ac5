// Pure: no runtime, no clock, no socket, no random numbers.

//! The 64 steps of MD5, written once for numbers and for vectors of every width.

/// The initial state of a message.
pub(super) const INITIAL: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// The constants that the steps add: for step `i` the first 32 bits of the fraction of `|sin(i + 1)|`.
#[rustfmt::skip]
pub(super) const SINES: [u32; 64] = [
        0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501,
        0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be, 0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821,
        0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
        0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed, 0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a,
        0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c, 0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70,
        0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
        0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
        0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1, 0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];

/// `$step!` for each of the 64 steps: the function of the round, the state as that step sees it, which word and
/// which sine it adds, and how far it rotates.
macro_rules! steps {
    ($step:ident! $a:ident $b:ident $c:ident $d:ident) => {
        steps!(@round $step f 7 12 17 22, $a $b $c $d,
            0: 0 1 2 3, 4: 4 5 6 7, 8: 8 9 10 11, 12: 12 13 14 15);
        steps!(@round $step g 5 9 14 20, $a $b $c $d,
            16: 1 6 11 0, 20: 5 10 15 4, 24: 9 14 3 8, 28: 13 2 7 12);
        steps!(@round $step h 4 11 16 23, $a $b $c $d,
            32: 5 8 11 14, 36: 1 4 7 10, 40: 13 0 3 6, 44: 9 12 15 2);
        steps!(@round $step i 6 10 15 21, $a $b $c $d,
            48: 0 7 14 5, 52: 12 3 10 1, 56: 8 15 6 13, 60: 4 11 2 9);
    };
    (@round $step:ident $f:ident $s0:literal $s1:literal $s2:literal $s3:literal,
     $a:ident $b:ident $c:ident $d:ident, $($n:literal: $w0:literal $w1:literal $w2:literal $w3:literal),*) => {
        $(
            $step!($f $a $b $c $d, $w0, $n, $s0);
            $step!($f $d $a $b $c, $w1, $n + 1, $s1);
            $step!($f $c $d $a $b, $w2, $n + 2, $s2);
            $step!($f $b $c $d $a, $w3, $n + 3, $s3);
        )*
    };
}

/// The functions of the rounds for plain numbers, each added to a sum.
pub(super) mod plain {
    #[inline(always)]
    pub(crate) fn f(sum: u32, b: u32, c: u32, d: u32) -> u32 {
        sum.wrapping_add(d ^ (b & (c ^ d)))
    }

    /// The two halves have no bit in common, so they can be added separately. Only the second one waits for `b`, the
    /// result of the step before.
    #[inline(always)]
    pub(crate) fn g(sum: u32, b: u32, c: u32, d: u32) -> u32 {
        sum.wrapping_add(c & !d).wrapping_add(b & d)
    }

    #[inline(always)]
    pub(crate) fn h(sum: u32, b: u32, c: u32, d: u32) -> u32 {
        sum.wrapping_add(b ^ (c ^ d))
    }

    #[inline(always)]
    pub(crate) fn i(sum: u32, b: u32, c: u32, d: u32) -> u32 {
        sum.wrapping_add(c ^ (b | !d))
    }
}

/// The state after the block `$words`, from `$state`. Both are pairs of vectors, because the steps of one message wait
/// for each other. The caller has the operations in scope.
#[cfg(target_arch = "x86_64")]
macro_rules! compress_pair {
    ($words:expr, $state:expr) => {{
        let words = $words;
        let [mut a, mut b, mut c, mut d] = $state;
        macro_rules! step {
            ($f:ident $a:ident $b:ident $c:ident $d:ident, $w:literal, $k:expr, $s:literal) => {
                let sine = splat(const { steps::SINES[$k] });
                let left = $f(add($a[0], add(words[0][$w], sine)), $b[0], $c[0], $d[0]);
                let right = $f(add($a[1], add(words[1][$w], sine)), $b[1], $c[1], $d[1]);
                $a = [
                    add($b[0], rotate::<$s, { 32 - $s }>(left)),
                    add($b[1], rotate::<$s, { 32 - $s }>(right)),
                ];
            };
        }
        steps!(step! a b c d);
        [a, b, c, d]
    }};
}

/// Defines `hash` in a module that has `Vector` and its operations, for `$lanes` numbers in a vector.
#[cfg(target_arch = "x86_64")]
macro_rules! kernel {
    ($features:literal, $lanes:literal) => {
        const LANES: usize = $lanes;

        /// Hashes 32 messages.
        #[target_feature(enable = $features)]
        pub(super) fn hash(block: Block<'_>, positions: &mut [u32; BLOCK]) {
            match block {
                Block::Uuids(keys) => {
                    for (keys, out) in pairs(keys).iter().zip(positions.as_chunks_mut().0) {
                        uuids(keys, out);
                    }
                }
                Block::Keys(keys) => {
                    for (keys, out) in pairs(keys).iter().zip(positions.as_chunks_mut().0) {
                        texts(keys, out);
                    }
                }
                Block::Points(points) => {
                    for (pair, out) in positions.as_chunks_mut().0.iter_mut().enumerate() {
                        points_of_a_member(points, pair * 2 * LANES, out);
                    }
                }
            }
        }

        fn pairs<T>(keys: &[T; BLOCK]) -> &[[T; 2 * LANES]] {
            keys.as_chunks().0
        }

        /// Texts of 36 bytes: the padding is known in advance.
        #[inline]
        #[target_feature(enable = $features)]
        fn uuids(keys: &[&[u8; UUID]; 2 * LANES], positions: &mut [u32; 2 * LANES]) {
            let (left, right) = keys.split_at(LANES);
            let words = [words_of(left), words_of(right)];
            let [first, ..] = compress_pair!(&words, initial());
            finish(first, positions);
        }

        /// Returned by value: as elements of a larger array they would go through memory, and the compiler would not
        /// know which of them are constants.
        #[inline]
        #[target_feature(enable = $features)]
        fn words_of(uuids: &[&[u8; UUID]]) -> [Vector; 16] {
            let mut words = [splat(0); 16];
            [words[0], words[1], words[2], words[3]] = columns(|lane| message::sixteen(uuids[lane], 0));
            [words[4], words[5], words[6], words[7]] = columns(|lane| message::sixteen(uuids[lane], 16));
            [_, _, _, words[8]] = columns(|lane| message::sixteen(uuids[lane], UUID - 16));
            words[9] = splat(0x80);
            words[14] = splat(8 * UUID as u32);
            words
        }

        /// Texts of any length, each with as many blocks as it needs.
        #[inline]
        #[target_feature(enable = $features)]
        fn texts(keys: &[&[u8]; 2 * LANES], positions: &mut [u32; 2 * LANES]) {
            let longest = keys.iter().map(|key| key.len()).max().unwrap_or(0);
            let mut state = initial();
            for block in 0..message::blocks(longest) {
                let mut words = [[splat(0); 16]; 2];
                let mut unfinished = [splat(0); 2];
                for half in 0..2 {
                    for part in 0..4 {
                        let at = 64 * block + 16 * part;
                        if at <= longest {
                            let mut rows = [0; LANES];
                            for lane in 0..LANES {
                                rows[lane] = message::part(keys[half * LANES + lane], at);
                            }
                            let to = &mut words[half][4 * part..][..4];
                            [to[0], to[1], to[2], to[3]] = columns(|lane| rows[lane]);
                        }
                    }
                    let (mut bits, mut masks) = ([0; LANES], [0; LANES]);
                    for lane in 0..LANES {
                        let len = keys[half * LANES + lane].len();
                        let blocks = message::blocks(len);
                        bits[lane] = if block + 1 == blocks { 8 * len as u32 } else { 0 };
                        masks[lane] = if block < blocks { u32::MAX } else { 0 };
                    }
                    words[half][14] = or(words[half][14], load(&bits));
                    unfinished[half] = load(&masks);
                }
                let next = compress(&words, state);
                for (state, next) in state.iter_mut().zip(next) {
                    for half in 0..2 {
                        let sum = add(state[half], next[half]);
                        state[half] = choose(unfinished[half], sum, state[half]);
                    }
                }
            }
            store(state[0], positions);
        }

        /// Points of one member: only the digits at the end of the label differ.
        #[inline]
        #[target_feature(enable = $features)]
        fn points_of_a_member(points: &Points, from: usize, positions: &mut [u32; 2 * LANES]) {
            let mut words = [[splat(0); 16]; 2];
            for half in 0..2 {
                let from = from + half * LANES;
                let lanes = |of: &[u32; BLOCK]| -> [u32; LANES] {
                    *of[from..].first_chunk().expect("the lanes are part of the block")
                };
                let words = &mut words[half];
                for (word, &stem) in words.iter_mut().zip(&points.stem) {
                    *word = splat(stem);
                }
                for (word, digits) in words[points.at..].iter_mut().zip(&points.digits) {
                    *word = or(*word, load(&lanes(digits)));
                }
                words[14] = load(&lanes(&points.bits));
            }
            let [first, ..] = compress(&words, initial());
            finish(first, positions);
        }

        #[inline(never)]
        #[target_feature(enable = $features)]
        fn compress(words: &[[Vector; 16]; 2], state: [[Vector; 2]; 4]) -> [[Vector; 2]; 4] {
            compress_pair!(words, state)
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn initial() -> [[Vector; 2]; 4] {
            let [a, b, c, d] = steps::INITIAL;
            [[splat(a); 2], [splat(b); 2], [splat(c); 2], [splat(d); 2]]
        }

        /// The first word of messages of one block.
        #[inline]
        #[target_feature(enable = $features)]
        fn finish(first: [Vector; 2], positions: &mut [u32; 2 * LANES]) {
            let initial = splat(steps::INITIAL[0]);
            store([add(first[0], initial), add(first[1], initial)], positions);
        }

        /// Positions are the first word of a hash, big endian.
        #[inline]
        #[target_feature(enable = $features)]
        fn store(first: [Vector; 2], positions: &mut [u32; 2 * LANES]) {
            for (out, vector) in positions.as_chunks_mut().0.iter_mut().zip(first) {
                unload(vector, out);
                for position in out {
                    *position = position.swap_bytes();
                }
            }
        }
    };
}
