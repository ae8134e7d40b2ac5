// Pure: no runtime, no clock, no socket, no random numbers.

//! The messages of one block, the input of every kernel.

/// How many keys are hashed at once.
pub(crate) const BLOCK: usize = 32;
/// The length of the text of a uuid, the most common kind of key.
pub(super) const UUID: usize = 36;

/// 32 messages.
#[derive(Clone, Copy)]
pub(super) enum Block<'a> {
    Uuids(&'a [&'a [u8; UUID]; BLOCK]),
    Keys(&'a [&'a [u8]; BLOCK]),
    Points(&'a Points),
}

/// Labels of one block each, with a common stem.
pub(super) struct Points {
    /// The words of the stem, followed by zeros.
    pub(super) stem: [u32; 16],
    /// The index of the first of three words with the digits of the numbers and the end mark.
    pub(super) at: usize,
    pub(super) digits: [[u32; BLOCK]; 3],
    /// The lengths of the labels in bits.
    pub(super) bits: [u32; BLOCK],
}

/// The decimal texts of the numbers from 0 on, each with the end mark of a message.
pub(crate) struct Numbers {
    pub(super) texts: Vec<u64>,
}

impl Numbers {
    /// So many digits and the mark fill the bytes of one number.
    pub(super) const DIGITS: usize = 7;

    /// The first `count` numbers; fewer if the last ones have too many digits.
    pub(crate) fn first(count: usize) -> Numbers {
        let text = |number: u64| {
            let (mut text, mut rest) = (0x80, number);
            loop {
                text = (text << 8) | (u64::from(b'0') + rest % 10);
                rest /= 10;
                if rest == 0 {
                    return text;
                }
            }
        };
        let count = count.min(10usize.pow(Self::DIGITS as u32));
        Numbers { texts: (0..count as u64).map(text).collect() }
    }
}

impl Points {
    pub(super) fn of(stem: &[u8]) -> Points {
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(stem.chunks(4)) {
            *word = bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
        }
        Points { stem: words, at: (stem.len() / 4).min(13), digits: [[0; BLOCK]; 3], bits: [0; BLOCK] }
    }

    /// Puts numbers after the stem.
    pub(super) fn number(&mut self, stem: usize, texts: &[u64]) {
        let shift = 8 * (stem % 4);
        for (lane, &text) in texts.iter().enumerate() {
            let digits = u128::from(text) << shift;
            self.digits[0][lane] = digits as u32;
            self.digits[1][lane] = (digits >> 32) as u32;
            self.digits[2][lane] = (digits >> 64) as u32;
            let len = stem as u32 + (63 - text.leading_zeros()) / 8;
            self.bits[lane] = 8 * len;
        }
    }
}
