// Pure: no runtime, no clock, no socket, no random numbers.

//! Whether the members of a group of tooz, those in Python included, have one ring.

use crate::{error::unclear::Unclear, member::MemberId, ring::HashRingBuilder};

/// A member of a group of tooz, as its Python members see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'a> {
    pub(crate) id: &'a MemberId,
    /// It does not matter while it is unclear.
    pub(crate) weight: u32,
    /// Why Python members may not agree on the weight.
    pub(crate) unclear: Option<&'a Unclear>,
    pub(crate) is_plain: bool,
}

/// A member of a group of tooz because of which it is not certain that all members have one ring, and why. `members`
/// are sorted by id, and each has `partitions` points for each unit of its weight.
///
/// It can only be uncertain because of Python members, and only together with them.
pub(crate) fn unclear<'a>(
    members: impl Iterator<Item = Peer<'a>>,
    partitions: u32,
) -> Option<(&'a MemberId, Unclear)> {
    let members: Vec<Peer<'a>> = members.collect();
    members.iter().find(|member| member.is_plain)?;
    for member in &members {
        if let Some(why) = member.unclear {
            return Some((member.id, why.clone()));
        }
        if !member.id.as_str().is_ascii() {
            return Some((member.id, Unclear::NotAscii));
        }
    }
    let points = |member: &Peer<'_>| u64::from(partitions) * u64::from(member.weight);
    let mut all = 0_u64;
    for member in &members {
        all = all.saturating_add(points(member));
        if all > HashRingBuilder::MAX_POINTS {
            return Some((member.id, Unclear::TooManyPoints));
        }
    }
    repeated(&members, points)
}

/// Two members whose points collide because their ids repeat one text.
fn repeated<'a>(members: &[Peer<'a>], points: impl Fn(&Peer<'a>) -> u64) -> Option<(&'a MemberId, Unclear)> {
    let mut by_root: Vec<(&str, &Peer<'a>)> =
        members.iter().map(|member| (root(member.id.as_str()), member)).collect();
    by_root.sort_by_key(|(root, _)| *root);
    for same in by_root.chunk_by(|(one, _), (other, _)| one == other) {
        for (at, (root, one)) in same.iter().enumerate() {
            let times = |member: &Peer<'a>| (member.id.as_str().len() / root.len()) as u64;
            let collides =
                |other: &Peer<'a>| collide((times(one), points(one)), (times(other), points(other)));
            if let Some((_, other)) = same[..at].iter().find(|(_, other)| collides(other)) {
                return Some((one.id, Unclear::RepeatedId(other.id.clone())));
            }
        }
    }
    None
}

/// Whether two ids, each so many times one text, share a point. Point `r` of so many is the hash of the id repeated
/// `r + 2` times.
fn collide((one, one_points): (u64, u64), (other, other_points): (u64, u64)) -> bool {
    let least = one / greatest_divisor(one, other) * other;
    // The first length at which both ids are repeated at least twice.
    let length = if least == one || least == other { 2 * least } else { least };
    length / one <= one_points + 1 && length / other <= other_points + 1
}

fn greatest_divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { greatest_divisor(other, one % other) }
}

/// The shortest text of which `id` is a repetition; `id` itself if there is none.
fn root(id: &str) -> &str {
    let bytes = id.as_bytes();
    // For each prefix, the length of the longest text that it both begins and ends with, and that is not all of it.
    let mut borders = vec![0; bytes.len()];
    for end in 1..bytes.len() {
        let mut border: usize = borders[end - 1];
        while border > 0 && bytes[border] != bytes[end] {
            border = borders[border - 1];
        }
        borders[end] = border + usize::from(bytes[border] == bytes[end]);
    }
    let period = bytes.len() - borders.last().copied().unwrap_or(0);
    let is_repeated = period > 0 && bytes.len().is_multiple_of(period);
    id.get(..period).filter(|_| is_repeated).unwrap_or(id)
}

#[cfg(test)]
mod tests;
