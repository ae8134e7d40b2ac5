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
        show(&[], seen.ring(), seen.ring(), change.list, &found, output)?;
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
    let read = || io::stdin().lock().lines().collect::<Result<Vec<_>, _>>();
    let keys: Vec<String> = tokio::task::block_in_place(read)?;
    let keys: Vec<String> = keys.into_iter().filter(|key| !key.is_empty()).collect();
    show(&keys, before, &after, change.list, &found, output)?;
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

fn show(
    keys: &[String],
    before: &HashRing,
    after: &HashRing,
    lists: bool,
    found: &[Finding],
    output: Output,
) -> Result<(), Failure> {
    let mut parts: BTreeMap<&str, Part> = BTreeMap::new();
    for id in before.members().chain(after.members()) {
        parts.entry(id).or_default();
    }
    let mut moved = Vec::new();
    for key in keys {
        let (from, to) = (before.owner(key), after.owner(key));
        from.into_iter().for_each(|id| parts.entry(id).or_default().before += 1);
        to.into_iter().for_each(|id| parts.entry(id).or_default().after += 1);
        if from != to {
            from.into_iter().for_each(|id| parts.entry(id).or_default().loses += 1);
            to.into_iter().for_each(|id| parts.entry(id).or_default().gains += 1);
            moved.push((key, from, to));
        }
    }
    if output.is_json {
        let members = parts.iter().map(|(id, part)| {
            json!({ "id": id, "before": part.before, "after": part.after, "gains": part.gains, "loses": part.loses })
        });
        let members: Vec<_> = members.collect();
        let list = lists.then(|| {
            let moved = moved.iter().map(|(key, from, to)| json!({ "key": key, "from": from, "to": to }));
            moved.collect::<Vec<_>>()
        });
        let found: Vec<_> = found.iter().map(Finding::json).collect();
        return output.json(&json!({
            "keys": keys.len(), "moved": moved.len(), "members": members, "list": list, "findings": found
        }));
    }
    if lists {
        let name = |id: &Option<&str>| id.unwrap_or("-").to_owned();
        let rows = moved.iter().map(|(key, from, to)| vec![(*key).clone(), name(from), name(to)]);
        output.table(&["KEY", "FROM", "TO"], rows.collect())?;
    }
    let rows = parts.iter().map(|(id, part)| {
        let numbers = [part.before, part.after, part.gains, part.loses];
        [vec![(*id).to_owned()], numbers.map(|number| number.to_string()).to_vec()].concat()
    });
    output.table(&["MEMBER", "BEFORE", "AFTER", "GAINS", "LOSES"], rows.collect())?;
    if !parts.is_empty() {
        output.line(format_args!("{} of {} would move", moved.len(), count(keys.len(), "key")))?;
    }
    output.findings(found)
}
