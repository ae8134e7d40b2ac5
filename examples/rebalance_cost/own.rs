//! Your own keys and members: which keys would move where, and how even the shares are before and after.

mod input;
mod moves;
mod print;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use apportion::{HashRing, Label, ring::HashRingBuilder};

use self::{
    input::{Entry, Keys, Members},
    moves::{Move, Outcome, Share},
};
use crate::{
    report::{self, csv},
    support::Failure,
};

/// The arguments for the user's own keys.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Your own keys")]
pub struct OwnArgs {
    /// A file with one key a line; empty lines do not count, repeated keys do
    #[arg(long, value_name = "FILE", requires = "members")]
    keys: Option<PathBuf>,
    /// A file with one member a line: its id and, after a space, its weight if that is not 1
    #[arg(long, value_name = "FILE", requires = "keys")]
    members: Option<PathBuf>,
    /// Which member leaves; may be repeated
    #[arg(long, value_name = "ID", requires = "keys")]
    leave: Vec<String>,
    /// Which member joins, after those that leave have left: 'ID' or 'ID WEIGHT'; may be repeated
    #[arg(long, value_name = "ID", requires = "keys")]
    join: Vec<Entry>,
    /// How many points a member of weight 1 has [default: 100]
    #[arg(long, value_name = "NUMBER", requires = "keys")]
    replicas: Option<u32>,
    /// What is hashed for a point: plain, or python-bytes as in an aodh fleet [default: plain]
    #[arg(long, value_name = "LABEL", requires = "keys")]
    label: Option<Label>,
}

impl OwnArgs {
    /// The files of keys and members, if they are given.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        self.keys.as_deref().zip(self.members.as_deref())
    }

    fn empty_ring(&self) -> HashRingBuilder {
        let builder = HashRing::builder().label(self.label.unwrap_or_default());
        self.replicas.into_iter().fold(builder, HashRingBuilder::replicas)
    }
}

/// Reports the moves, on the screen and in files in `out`.
pub fn run(keys: &Path, members: &Path, args: &OwnArgs, out: &Path) -> Result<(), Failure> {
    let keys = Keys::read(keys)?;
    let members = Members::read(members)?;
    let before = members.ring(args.empty_ring())?;
    let after = members.change(&before, &args.leave, &args.join)?;
    let outcome = Outcome::of(&keys.all, &before, &after);
    report::create(out)?;
    let files = [
        report::save(out, "moves.csv", &moves_csv(&outcome.moves)?)?,
        report::save(out, "shares.csv", &shares_csv(&outcome)?)?,
    ];
    print::all(&keys, &members, &before, args, &outcome, &files);
    Ok(())
}

fn moves_csv(moves: &[Move<'_>]) -> Result<String, Failure> {
    csv::table("key,from,to", moves.iter().map(|moved| (moved.key, moved.from, moved.to)))
}

fn shares_csv(outcome: &Outcome<'_>) -> Result<String, Failure> {
    let rows = outcome.shares.iter().map(|(member, Share { before, after })| {
        (member, before.weight, before.keys, after.weight, after.keys)
    });
    csv::table("member,weight_before,keys_before,weight_after,keys_after", rows)
}
