//! The baseline: a simple ring from good crates, without optimisation. Do not make it slower or faster.

use md5::{Digest, Md5};

pub(crate) struct Ring {
    points: Vec<(u32, u32)>,
}

impl Ring {
    pub(crate) fn new(members: &[String]) -> Ring {
        let mut points = Vec::with_capacity(100 * members.len());
        for (number, member) in (0..).zip(members) {
            for replica in 0..100 {
                points.push((position(&format!("{member}-{replica}")), number));
            }
        }
        points.sort_by_key(|(position, _)| *position);
        points.dedup_by(|later, kept| {
            let collide = later.0 == kept.0;
            if collide {
                *kept = *later;
            }
            collide
        });
        Ring { points }
    }

    pub(crate) fn owner(&self, key: &str) -> u32 {
        let position = position(key);
        let next = self.points.partition_point(|(point, _)| *point <= position);
        self.points[if next == self.points.len() { 0 } else { next }].1
    }

    pub(crate) fn points(&self) -> usize {
        self.points.len()
    }
}

fn position(text: &str) -> u32 {
    let [a, b, c, d, ..] = <[u8; 16]>::from(Md5::digest(text));
    u32::from_be_bytes([a, b, c, d])
}
