//! `simulate`: what would move if members came or went.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, IsTerminal as _},
};

use apportion::{HashRing, serde_json::json};

use crate::{
    arguments::{Common, Newcomer, Simulate},
    failure::Failure,
    findings::{self, Finding},
    group::observe_one,
    outcome::Outcome,
    output::{Output, count},
};

pub(crate) async fn simulate(common: &Common, change: &Simulate, output: Output) -> Result<Outcome, Failure> {
    if change.leave.is_empty() && change.join.is_empty() {
        return Err(Failure::Usage("what changes? Say --leave MEMBER or --join MEMBER[=WEIGHT]".into()));
    }
    let seen = observe_one(common, &change.which).await?;
    let found = findings::of_ring(&seen);
    if !seen.exists() {
        show(&Tally::new(seen.ring(), seen.ring(), change.list), &found, output)?;
        return Ok(Outcome::Problem);
    }
    let before = seen.ring();
    let mut after = before.clone();
    for id in &change.leave {
        if !before.contains(id) {
            let members: Vec<_> = before.members().collect();
            let known = members.join(", ");
            return Err(Failure::NotDone(format!("there is no member `{id}` to leave; there are: {known}")));
        }
        after = after.without_member(id);
    }
    for Newcomer { id, weight } in &change.join {
        after = after
            .with_member(id, *weight)
            .map_err(|error| Failure::Usage(format!("`--join {id}={weight}`: {error}")))?;
    }
    if io::stdin().is_terminal() {
        output.hint("reads keys from this terminal, one a line, until Ctrl-D");
    }
    let mut tally = Tally::new(before, &after, change.list);
    let read = || io::stdin().lock().lines().try_for_each(|key| key.map(|key| tally.add(key)));
    tokio::task::block_in_place(read)?;
    show(&tally, &found, output)?;
    Ok(Outcome::of(found.iter().any(|it| it.is_problem)))
}

/// How many keys of a member there are, and how many of them come and go.
#[derive(Default)]
struct Part {
    before: usize,
    after: usize,
    gains: usize,
    loses: usize,
}

/// A key with its owners before and after.
type Moved<'a> = (String, Option<&'a str>, Option<&'a str>);

/// What has been counted of the keys so far. Only keys that are to be listed are kept.
struct Tally<'a> {
    before: &'a HashRing,
    after: &'a HashRing,
    keys: usize,
    moved: usize,
    parts: BTreeMap<&'a str, Part>,
    list: Option<Vec<Moved<'a>>>,
}

impl<'a> Tally<'a> {
    fn new(before: &'a HashRing, after: &'a HashRing, lists: bool) -> Self {
        let parts = before.members().chain(after.members()).map(|id| (id, Part::default())).collect();
        Tally { before, after, keys: 0, moved: 0, parts, list: lists.then(Vec::new) }
    }

    fn add(&mut self, key: String) {
        if key.is_empty() {
            return;
        }
        self.keys += 1;
        let (from, to) = (self.before.owner(&key), self.after.owner(&key));
        from.into_iter().for_each(|id| self.parts.entry(id).or_default().before += 1);
        to.into_iter().for_each(|id| self.parts.entry(id).or_default().after += 1);
        if from == to {
            return;
        }
        self.moved += 1;
        from.into_iter().for_each(|id| self.parts.entry(id).or_default().loses += 1);
        to.into_iter().for_each(|id| self.parts.entry(id).or_default().gains += 1);
        if let Some(list) = &mut self.list {
            list.push((key, from, to));
        }
    }
}

fn show(tally: &Tally<'_>, found: &[Finding], output: Output) -> Result<(), Failure> {
    let Tally { keys, moved, parts, list, .. } = tally;
    if output.is_json {
        let members = parts.iter().map(|(id, part)| {
            json!({ "id": id, "before": part.before, "after": part.after, "gains": part.gains, "loses": part.loses })
        });
        let members: Vec<_> = members.collect();
        let one = |(key, from, to): &Moved<'_>| json!({ "key": key, "from": from, "to": to });
        let list = list.as_ref().map(|list| list.iter().map(one).collect::<Vec<_>>());
        let found: Vec<_> = found.iter().map(Finding::json).collect();
        return output.json(&json!({
            "keys": keys, "moved": moved, "members": members, "list": list, "findings": found
        }));
    }
    if let Some(list) = list {
        let name = |id: &Option<&str>| id.unwrap_or("-").to_owned();
        let rows = list.iter().map(|(key, from, to)| vec![key.clone(), name(from), name(to)]);
        output.table(&["KEY", "FROM", "TO"], rows.collect())?;
    }
    let rows = parts.iter().map(|(id, part)| {
        let numbers = [part.before, part.after, part.gains, part.loses];
        [vec![(*id).to_owned()], numbers.map(|number| number.to_string()).to_vec()].concat()
    });
    output.table(&["MEMBER", "BEFORE", "AFTER", "GAINS", "LOSES"], rows.collect())?;
    if !parts.is_empty() {
        output.line(format_args!("{moved} of {} would move", count(*keys, "key")))?;
    }
    output.findings(found)
}
