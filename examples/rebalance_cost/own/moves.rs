//! Pure: the owners of the user's keys before and after a change, and the figures that follow.

use std::{cmp::Reverse, collections::BTreeMap};

use apportion::HashRing;

/// The effect of a change on keys.
pub struct Outcome<'a> {
    /// The keys that move, in the order given.
    pub moves: Vec<Move<'a>>,
    /// The part of the weight that has to move to others, if all shares are to be fair.
    pub ideal: f64,
    /// How many keys move between two members that stay.
    pub between: usize,
    /// All members, before or after, sorted.
    pub shares: BTreeMap<&'a str, Share>,
}

pub struct Move<'a> {
    pub key: &'a str,
    /// `None` where there is no member.
    pub from: Option<&'a str>,
    pub to: Option<&'a str>,
}

/// How many keys move from one to another.
pub struct Pair<'a> {
    pub from: Option<&'a str>,
    pub to: Option<&'a str>,
    pub keys: usize,
}

/// The weight and keys of a member before and after. Without a weight it is not a member.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Share {
    pub before: Side,
    pub after: Side,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Side {
    pub weight: Option<u32>,
    pub keys: usize,
}

/// How even shares are, compared with what the weights ask for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Balance {
    pub members: usize,
    /// The largest and the smallest share, by the fair one.
    pub most: f64,
    pub least: f64,
    /// The coefficient of variation.
    pub cv: f64,
}

impl<'a> Outcome<'a> {
    pub fn of(keys: &'a [String], before: &'a HashRing, after: &'a HashRing) -> Outcome<'a> {
        let mut shares: BTreeMap<&str, Share> = BTreeMap::new();
        for member in before.members() {
            shares.entry(member).or_default().before.weight = before.weight(member);
        }
        for member in after.members() {
            shares.entry(member).or_default().after.weight = after.weight(member);
        }
        let mut moves = Vec::new();
        for ((key, from), (_, to)) in before.each_owner(keys).zip(after.each_owner(keys)) {
            if let Some(from) = from {
                shares.entry(from).or_default().before.keys += 1;
            }
            if let Some(to) = to {
                shares.entry(to).or_default().after.keys += 1;
            }
            if from != to {
                moves.push(Move { key, from, to });
            }
        }
        let stays = |member: Option<&str>| {
            member.is_some_and(|member| shares[member].before.weight == shares[member].after.weight)
        };
        let between = moves.iter().filter(|moved| stays(moved.from) && stays(moved.to)).count();
        Outcome { between, ideal: ideal(&shares), moves, shares }
    }

    /// How many keys move from one member to another, the largest number first.
    pub fn pairs(&self) -> Vec<Pair<'a>> {
        let mut counts = BTreeMap::new();
        for moved in &self.moves {
            *counts.entry((moved.from, moved.to)).or_insert(0) += 1;
        }
        let mut pairs: Vec<_> =
            counts.into_iter().map(|((from, to), keys)| Pair { from, to, keys }).collect();
        // A stable sort, so that names decide between equals.
        pairs.sort_by_key(|pair| Reverse(pair.keys));
        pairs
    }

    /// How even the shares are on one side; `None` without members.
    pub fn balance(&self, side: impl Fn(&Share) -> Side) -> Option<Balance> {
        let sides: Vec<(f64, f64)> = self
            .shares
            .values()
            .map(side)
            .filter_map(|side| Some((f64::from(side.weight?), side.keys as f64)))
            .collect();
        let weight: f64 = sides.iter().map(|(weight, _)| weight).sum();
        let keys: f64 = sides.iter().map(|(_, keys)| keys).sum();
        if sides.is_empty() || keys == 0.0 {
            return None;
        }
        let ratios: Vec<f64> = sides.iter().map(|(of, has)| has / (keys * of / weight)).collect();
        let squares: f64 = ratios.iter().map(|ratio| (ratio - 1.0).powi(2)).sum();
        Some(Balance {
            members: sides.len(),
            most: ratios.iter().copied().fold(0.0, f64::max),
            least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            cv: (squares / ratios.len() as f64).sqrt(),
        })
    }
}

fn ideal(shares: &BTreeMap<&str, Share>) -> f64 {
    let fair = |side: fn(&Share) -> Side| {
        let all: f64 = shares.values().filter_map(|share| side(share).weight).map(f64::from).sum();
        move |share: &Share| side(share).weight.map_or(0.0, |weight| f64::from(weight) / all)
    };
    let (before, after) = (fair(|share| share.before), fair(|share| share.after));
    shares.values().map(|share| (before(share) - after(share)).max(0.0)).sum()
}
