//! `status`, `members`, `owner` and `why`.

use std::sync::Arc;

use apportion::{
    group::{MemberState, Observation, ObservedMember, PendingHandover},
    serde_json::{Value, json},
};

use crate::{
    arguments::{Common, Keys, Which},
    failure::Failure,
    findings::{self, Finding},
    outcome::Outcome,
    output::{Output, count, percent},
    store::Store,
    time::{age, ms, short},
};

/// The groups of the namespace, as the store has them.
pub(crate) async fn names(store: &Store) -> Result<Vec<String>, Failure> {
    match store.children(&store.namespace).await? {
        Some((names, _)) => Ok(names.into_iter().filter(|name| name != "locks").collect()),
        None => Err(Failure::NotDone(format!(
            "there is no namespace `{}`: name that of the services with --namespace, or in the URL. Services with aodh \
             have --aodh",
            store.namespace
        ))),
    }
}

/// Those that the caller means.
pub(crate) async fn chosen(store: &Store, which: &Which) -> Result<Vec<String>, Failure> {
    let names = names(store).await?;
    Ok(which.group.clone().map_or(names, |group| vec![group]))
}

/// The one that the caller means.
pub(crate) async fn chosen_one(store: &Store, which: &Which) -> Result<String, Failure> {
    let mut chosen = chosen(store, which).await?;
    match chosen.len() {
        1 => Ok(chosen.remove(0)),
        0 => Err(Failure::NotDone(format!("namespace `{}` has no group", store.namespace))),
        _ => Err(Failure::Usage(format!("which group? Say --group with one of: {}", chosen.join(", ")))),
    }
}

/// Reads these groups once. One that cannot be read does not keep the caller from the others.
pub(crate) async fn observe(
    store: &Store,
    groups: &[String],
) -> Result<Vec<Result<Arc<Observation>, Failure>>, Failure> {
    let coordinator = store.coordinator().await?;
    let mut seen = Vec::new();
    for group in groups {
        let observed = coordinator.observe(group).await;
        seen.push(observed.map(|observer| observer.observation()).map_err(Failure::from));
    }
    // The session ends with its timeout if this is not confirmed.
    let _ = coordinator.shutdown().await;
    Ok(seen)
}

/// Reads the group that the caller means once.
pub(crate) async fn observe_one(store: &Store, which: &Which) -> Result<Arc<Observation>, Failure> {
    let group = chosen_one(store, which).await?;
    observe(store, &[group]).await?.remove(0)
}

async fn seen(common: &Common, which: &Which) -> Result<Arc<Observation>, Failure> {
    let store = Store::open(common).await?;
    let seen = observe_one(&store, which).await;
    store.close().await;
    seen
}

pub(crate) async fn status(common: &Common, which: &Which, output: Output) -> Result<Outcome, Failure> {
    let store = Store::open(common).await?;
    let groups = chosen(&store, which).await?;
    let namespace = store.namespace.to_string();
    let observed = observe(&store, &groups).await;
    store.close().await;
    let (mut seen, mut denied) = (Vec::new(), Vec::new());
    for (group, observed) in groups.iter().zip(observed?) {
        match observed {
            Ok(one) => seen.push(one),
            Err(failure) if which.group.is_some() => return Err(failure),
            Err(failure) => denied.push(unreadable(group, &failure)),
        }
    }
    let found: Vec<Vec<Finding>> = seen.iter().map(|seen| findings::of_group(seen)).collect();
    let has_problems = found.iter().flatten().chain(&denied).any(|it| it.is_problem);
    if output.is_json {
        let groups: Vec<_> = seen.iter().zip(&found).map(|(seen, found)| json_of(seen, found)).collect();
        let denied: Vec<_> = denied.iter().map(Finding::json).collect();
        output.json(&json!({ "namespace": namespace, "groups": groups, "findings": denied }))?;
        return Ok(Outcome::of(has_problems));
    }
    for (at, (seen, found)) in seen.iter().zip(&found).enumerate() {
        if at > 0 {
            output.line("")?;
        }
        headline(seen, output)?;
        table(seen, output)?;
        output.findings(found)?;
    }
    output.findings(&denied)?;
    if groups.is_empty() {
        output.line(format_args!("namespace `{namespace}` has no group"))?;
    }
    Ok(Outcome::of(has_problems))
}

/// A group that could not be read.
pub(crate) fn unreadable(group: &str, failure: &Failure) -> Finding {
    Finding::problem(format!("group `{group}`: {failure}"), "It was not examined")
}

fn headline(seen: &Observation, output: Output) -> Result<(), Failure> {
    let name = format!("group {}", seen.group());
    if !seen.exists() {
        return output.titled(&name, "");
    }
    let kind = match (seen.hands_over(), seen.is_exclusive()) {
        (true, true) => "exclusive",
        (true, false) => "exclusive among members of this library",
        (false, _) => "no keys are handed over",
    };
    let since = if seen.hands_over() { format!(" for {}", short(age(seen.since()))) } else { String::new() };
    let members = count(seen.members().len(), "member");
    output.titled(&name, format_args!(": {members}, epoch {}{since}, {kind}", seen.epoch()))
}

fn table(seen: &Observation, output: Output) -> Result<(), Failure> {
    let dash = || "-".to_owned();
    let rows = seen.members().iter().map(|it| {
        vec![
            it.member.id().to_string(),
            state(it).into(),
            percent(it.owned),
            it.member.weight().to_string(),
            kind(seen, it).into(),
            it.host.clone().unwrap_or_else(dash),
            it.pid.map_or_else(dash, |pid| pid.to_string()),
            it.joined.map_or_else(dash, |joined| short(age(joined))),
        ]
    });
    output.table(&["MEMBER", "STATE", "OWNS", "WEIGHT", "KIND", "HOST", "PID", "JOINED"], rows.collect())
}

fn kind(seen: &Observation, member: &ObservedMember) -> &'static str {
    match (member.member.is_plain(), member.hands_over) {
        (true, _) => "plain",
        // In an immediate group that goes without saying.
        (false, false) if seen.hands_over() => "immediate",
        (false, _) => "apportion",
    }
}

fn state(member: &ObservedMember) -> &'static str {
    match member.state {
        MemberState::Joining => "joining",
        MemberState::Warming => "warming",
        MemberState::Member if member.is_behind => "behind",
        MemberState::Member => "member",
        MemberState::Draining => "draining",
        MemberState::Gone => "gone",
        _ => "unknown",
    }
}

/// All of an observation.
pub(crate) fn json_of(seen: &Observation, found: &[Finding]) -> Value {
    json!({
        "group": seen.group(),
        "exists": seen.exists(),
        "epoch": seen.epoch(),
        "since_ms": seen.hands_over().then(|| ms(seen.since())),
        "hands_over": seen.hands_over(),
        "exclusive": seen.is_exclusive(),
        "paused": seen.is_paused(),
        "digest": format!("{:016x}", seen.ring().digest()),
        "members": seen.members().iter().map(member_json).collect::<Vec<_>>(),
        "pending": seen.pending().iter().map(|it| pending_json(seen, it)).collect::<Vec<_>>(),
        "findings": found.iter().map(Finding::json).collect::<Vec<_>>(),
    })
}

fn member_json(it: &ObservedMember) -> Value {
    json!({
        "id": it.member.id().as_str(),
        "state": it.state,
        "behind": it.is_behind,
        "owned": it.owned,
        "weight": it.member.weight(),
        "plain": it.member.is_plain(),
        "hands_over": it.hands_over,
        "kept": it.kept,
        "incarnation": it.member.incarnation(),
        "session": it.session.map(|session| session.to_string()),
        "host": it.host,
        "pid": it.pid,
        "joined_ms": it.joined.map(ms),
    })
}

fn pending_json(seen: &Observation, it: &PendingHandover) -> Value {
    let member = findings::member_of(seen, it);
    json!({
        "member": it.member.as_str(),
        "incarnation": it.incarnation,
        "present": it.is_present,
        "fraction": it.fraction,
        "since_ms": ms(it.since),
        "seconds": age(it.since).as_secs_f64(),
        "why": it.why,
        "host": member.and_then(|it| it.host.clone()),
        "pid": member.and_then(|it| it.pid),
    })
}

pub(crate) async fn members(common: &Common, which: &Which, output: Output) -> Result<Outcome, Failure> {
    let seen = seen(common, which).await?;
    if !seen.exists() {
        return Err(Failure::NotDone(format!(
            "there is no group `{}`: see `apportion status`",
            seen.group()
        )));
    }
    if output.is_json {
        output.json(&seen.members().iter().map(member_json).collect())?;
    } else if seen.members().is_empty() {
        output.line(format_args!("group `{}` has no member", seen.group()))?;
    } else {
        table(&seen, output)?;
    }
    Ok(Outcome::Fine)
}

pub(crate) async fn owner(common: &Common, keys: &Keys, output: Output) -> Result<Outcome, Failure> {
    let seen = seen(common, &keys.which).await?;
    let owners: Vec<_> = keys.keys.iter().map(|key| (key, seen.owner(key))).collect();
    let waits = |key: &String| seen.pending_for(key).count() > 0;
    let problem = findings::of_group(&seen).into_iter().find(|_| seen.problem().is_some());
    if output.is_json {
        let owners = owners.iter().map(|(key, owner)| {
            let owner = owner.map(|it| it.member.id().as_str());
            json!({ "key": key, "owner": owner, "waits": waits(key) })
        });
        output.json(&owners.collect())?;
    } else {
        let rows = owners.iter().map(|(key, owner)| {
            let owner = owner.map_or("-", |it| it.member.id().as_str());
            vec![(*key).clone(), owner.to_owned(), if waits(key) { "waits: see why" } else { "" }.to_owned()]
        });
        output.findings(problem.as_slice())?;
        output.table(&["KEY", "OWNER", ""], rows.collect())?;
    }
    let is_problem = problem.is_some() || owners.iter().any(|(key, owner)| owner.is_none() || waits(key));
    Ok(Outcome::of(is_problem))
}

pub(crate) async fn why(common: &Common, keys: &Keys, output: Output) -> Result<Outcome, Failure> {
    let seen = seen(common, &keys.which).await?;
    let answers: Vec<Answer<'_>> = keys.keys.iter().map(|key| Answer::of(&seen, key)).collect();
    if output.is_json {
        output.json(&answers.iter().map(|it| it.json(&seen)).collect())?;
    } else {
        for answer in &answers {
            answer.print(output)?;
        }
    }
    Ok(Outcome::of(
        answers.iter().any(|it| it.owner.is_none() || it.causes.iter().any(|cause| cause.is_problem)),
    ))
}

/// Why a key does not move.
struct Answer<'a> {
    key: &'a String,
    owner: Option<&'a ObservedMember>,
    pending: Vec<&'a PendingHandover>,
    causes: Vec<Finding>,
}

impl<'a> Answer<'a> {
    fn of(seen: &'a Observation, key: &'a String) -> Answer<'a> {
        let (owner, pending) = (seen.owner(key), seen.pending_for(key).collect::<Vec<_>>());
        let mut causes: Vec<Finding> = pending.iter().map(|it| waits_for(seen, it)).collect();
        let of_all = findings::of_group(seen);
        if owner.is_some() && seen.problem().is_some() {
            // Without the epochs it is not certain that nothing keeps the owner from acting.
            causes.splice(0..0, of_all.first().cloned());
        }
        match owner {
            // What is wrong with the group is why.
            None => {
                causes.extend(of_all.into_iter().filter(|it| it.is_problem));
                if causes.is_empty() {
                    causes.push(Finding::problem(
                        "no member of the ring can own it: none has a weight",
                        "Give a member a weight, or start one",
                    ));
                }
            }
            Some(owner) => {
                let id = owner.member.id();
                let named = format!("member `{id}`");
                let about = |it: &Finding| it.is_problem && it.what.starts_with(&named);
                if owner.state != MemberState::Member || owner.is_behind && pending.is_empty() {
                    causes.extend(of_all.iter().filter(|it| about(it)).cloned());
                }
                if seen.is_paused() {
                    causes.extend(of_all.into_iter().filter(|it| it.what.contains("is paused")));
                }
            }
        }
        Answer { key, owner, pending, causes }
    }

    fn json(&self, seen: &Observation) -> Value {
        json!({
            "key": self.key,
            "owner": self.owner.map(|it| it.member.id().as_str()),
            "waits_for": self.pending.iter().map(|it| pending_json(seen, it)).collect::<Vec<_>>(),
            "causes": self.causes.iter().map(Finding::json).collect::<Vec<_>>(),
        })
    }

    fn print(&self, output: Output) -> Result<(), Failure> {
        let key = self.key;
        match self.owner {
            Some(owner) if self.causes.is_empty() => {
                let process = findings::process(owner);
                let id = owner.member.id();
                output.titled(
                    key,
                    format_args!(": owned by `{id}`{process} and nothing keeps it from acting on it"),
                )
            }
            Some(owner) => {
                let verb = if self.pending.is_empty() { "owned by" } else { "goes to" };
                output.titled(key, format_args!(": {verb} `{}`", owner.member.id()))?;
                output.findings(&self.causes)
            }
            None => {
                output.titled(key, ": no owner")?;
                output.findings(&self.causes)
            }
        }
    }
}

/// A key waits for a member.
fn waits_for(seen: &Observation, pending: &PendingHandover) -> Finding {
    let member = findings::member_of(seen, pending);
    let process = member.map(findings::process).unwrap_or_default();
    let session = match member.and_then(|it| it.session).filter(|_| pending.is_present) {
        Some(session) => format!("its session {session} lives"),
        None if pending.is_present => "its session lives".into(),
        None => "its session has ended".into(),
    };
    let PendingHandover { member, since, why, .. } = pending;
    let what =
        format!("it waits for member `{member}`{process} for {}: {why}; {session}", short(age(*since)));
    Finding::problem(what, findings::advice(pending))
}
