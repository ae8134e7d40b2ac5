//! `simulate`: what would move if members came or went.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, IsTerminal as _},
};

use apportion::{HashRing, Label, group::Observation, serde_json::json};

use crate::{
    arguments::{Common, Simulate},
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
    let mut found = findings::of_ring(&seen);
    if !seen.exists() {
        show(&Tally::new(seen.ring(), seen.ring(), change.list), &found, output)?;
        return Ok(Outcome::Problem);
    }
    let before = seen.ring();
    if let Some(id) = change.leave.iter().find(|id| !before.contains(id)) {
        let members: Vec<_> = before.members().collect();
        let known = members.join(", ");
        return Err(Failure::NotDone(format!("there is no member `{id}` to leave; there are: {known}")));
    }
    let leave: Vec<&str> = change.leave.iter().map(String::as_str).collect();
    let join: Vec<(&str, u32)> = change.join.iter().map(|it| (it.id.as_str(), it.weight)).collect();
    let after = seen.ring_after(&leave, &join).map_err(|error| {
        let joining: Vec<_> = join.iter().map(|(id, weight)| format!("--join {id}={weight}")).collect();
        Failure::Usage(format!("`{}`: {error}", joining.join(" ")))
    })?;
    found.extend(of_weights(&seen, &after, &join));
    if io::stdin().is_terminal() {
        output.hint("reads keys from this terminal, one a line, until Ctrl-D");
    }
    let mut tally = Tally::new(before, &after, change.list);
    let read = || io::stdin().lock().lines().try_for_each(|key| key.map(|key| tally.add(key)));
    tokio::task::block_in_place(read)?;
    show(&tally, &found, output)?;
    Ok(Outcome::of(found.iter().any(|it| it.is_problem)))
}

/// Which weights do not count in the ring after the change, and which do that did not before.
fn of_weights(seen: &Observation, after: &HashRing, join: &[(&str, u32)]) -> Option<Finding> {
    if after.label() == Label::Tooz {
        return None;
    }
    let own = |id: &str| match join.iter().rev().find(|(new, _)| *new == id) {
        Some((_, asked)) => Some(*asked),
        None => seen.members().iter().find(|it| it.member.id().as_str() == id).map(|it| it.member.weight()),
    };
    let named = |id: &str| own(id).map(|weight| format!("`{id}` with {weight}"));
    let differs = |ring: &HashRing, id: &str| ring.weight(id).is_some_and(|counted| own(id) != Some(counted));
    let ignored: Vec<_> = after.members().filter(|id| differs(after, id)).filter_map(named).collect();
    if !ignored.is_empty() {
        let what = "beside a plain or immediate member each weight counts as 1";
        return Some(Finding::note("weights_ignored", format!("{what}, also {}", ignored.join(", "))));
    }
    let counted: Vec<_> = after
        .members()
        .filter(|id| join.iter().all(|(new, _)| new != id))
        .filter(|id| differs(seen.ring(), id) && own(id) != Some(1))
        .filter_map(named)
        .collect();
    (!counted.is_empty()).then(|| {
        let what = "without a plain or immediate member the weights count again";
        Finding::note("weights_count", format!("{what}: {}", counted.join(", ")))
    })
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
