//! Ways to place keys on members, each in a file of its own and as plain as it can be: enough to compare
//! them, not to be used.

mod anchor;
mod bounded;
mod jump;
mod maglev;
mod multi_probe;
mod rendezvous;
#[cfg(test)]
mod tests;

use std::thread;

/// The number of a member, which stands for its name.
pub type Member = u32;

/// A way to place keys.
pub struct Scheme {
    pub name: &'static str,
    /// Where the owner of one key depends on all others, a change means to place all of them again.
    pub needs_all_keys: bool,
    pub place: fn(&[Member]) -> Box<dyn Placement>,
}

/// A membership, and who owns which key in it.
pub trait Placement: Sync {
    fn join(&mut self, member: Member);
    fn leave(&mut self, member: Member);
    /// The owner of each of `keys`.
    fn owners(&self, keys: &[u64]) -> Vec<Member>;
}

pub const SCHEMES: [Scheme; 7] = [
    Scheme {
        name: "rendezvous",
        needs_all_keys: false,
        place: |members| Box::new(rendezvous::Rendezvous::new(members)),
    },
    Scheme { name: "jump", needs_all_keys: false, place: |members| Box::new(jump::Jump::new(members)) },
    Scheme { name: "Maglev", needs_all_keys: false, place: |members| Box::new(maglev::Maglev::new(members)) },
    Scheme {
        name: "AnchorHash",
        needs_all_keys: false,
        place: |members| Box::new(anchor::Anchor::new(members)),
    },
    Scheme {
        name: "multi-probe",
        needs_all_keys: false,
        place: |members| Box::new(multi_probe::MultiProbe::new(members)),
    },
    Scheme {
        name: "bounded 1.25",
        needs_all_keys: true,
        place: |members| Box::new(bounded::Bounded::new(members, 1.25)),
    },
    Scheme {
        name: "bounded 1.05",
        needs_all_keys: true,
        place: |members| Box::new(bounded::Bounded::new(members, 1.05)),
    },
];

/// Mixes the bits of a number well enough to be a hash of it: the finalizer of `SplitMix64`.
fn hash(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// One of many hashes of a member: its points, or where it begins and how it goes on.
fn hash_of(member: Member, number: u32) -> u64 {
    hash(hash(u64::from(member) << 32 | u64::from(number)))
}

/// Up to so many keys are placed by one thread.
pub const FEW: usize = 20_000;

/// Asks for the owner of each key by itself, on all processors if there are many.
fn each(keys: &[u64], owner: impl Fn(u64) -> Member + Sync) -> Vec<Member> {
    let threads = if keys.len() <= FEW { 1 } else { thread::available_parallelism().map_or(1, usize::from) };
    let mut owners = vec![0; keys.len()];
    let part = keys.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        for (keys, owners) in keys.chunks(part).zip(owners.chunks_mut(part)) {
            let work = || keys.iter().zip(owners).for_each(|(&key, place)| *place = owner(key));
            if threads == 1 {
                work();
            } else {
                scope.spawn(work);
            }
        }
    });
    owners
}
