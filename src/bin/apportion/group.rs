//! `status`, `members`, `owner` and `why`.

use std::sync::Arc;

use apportion::{
    group::{MemberState, Observation, ObservedMember, PendingHandover, Why},
    serde_json::{Value, json},
};

use crate::{
    arguments::{Common, Keys, Status, Which},
    failure::Failure,
    findings::{self, Finding},
    outcome::Outcome,
    output::{Output, count, listed, percent},
    store::Store,
    time::{age, ms, short},
    work::{self, Examined, Kind},
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
pub(crate) async fn observe_one(common: &Common, which: &Which) -> Result<Arc<Observation>, Failure> {
    let read = async |store: &Store| {
        let group = chosen_one(store, which).await?;
        observe(store, &[group]).await?.remove(0)
    };
    Store::with(common, read).await
}

/// What a status has read.
struct Read {
    namespace: String,
    seen: Vec<Arc<Observation>>,
    /// The boards and queues that the caller has named.
    work: Vec<Examined>,
    /// What is wrong beside the groups that could be read.
    found: Vec<Finding>,
}

impl Read {
    /// The numbers of the boards or of the queues that could be read.
    fn numbers(&self, kind: Kind) -> Value {
        self.work.iter().filter(|it| it.kind == kind).filter_map(|it| it.numbers.clone()).collect()
    }
}

async fn read(store: &Store, status: &Status) -> Result<Read, Failure> {
    let (mut seen, mut found) = (Vec::new(), Vec::new());
    match chosen(store, &status.which).await {
        Ok(groups) => {
            for (group, observed) in groups.iter().zip(observe(store, &groups).await?) {
                match observed {
                    Ok(one) => seen.push(one),
                    Err(failure) if status.which.group.is_some() => return Err(failure),
                    Err(failure) => found.push(unreadable(group, &failure)),
                }
            }
        }
        // A fleet with boards and queues alone has no groups.
        Err(failure) if !status.work.is_none() && status.which.group.is_none() => {
            found.push(Finding::note("no_groups", failure.to_string()));
        }
        Err(failure) => return Err(failure),
    }
    let work = work::examine(store, &status.work).await;
    found.extend(work.iter().flat_map(|it| it.found.iter().cloned()));
    Ok(Read { namespace: store.namespace.to_string(), seen, work, found })
}

pub(crate) async fn status(common: &Common, status: &Status, output: Output) -> Result<Outcome, Failure> {
    let read = Store::with(common, async |store: &Store| read(store, status).await).await?;
    let Read { namespace, seen, found, .. } = &read;
    let of_groups: Vec<Vec<Finding>> = seen.iter().map(|seen| findings::of_group(seen)).collect();
    let has_problems = of_groups.iter().flatten().chain(found).any(|it| it.is_problem);
    if output.is_json {
        let groups = seen.iter().zip(&of_groups).map(|(seen, found)| json_of(seen, found));
        let mut value = listed(groups, seen.len(), found);
        value["namespace"] = namespace.as_str().into();
        value["boards"] = read.numbers(Kind::Board);
        value["queues"] = read.numbers(Kind::Queue);
        output.json(&value)?;
        return Ok(Outcome::of(has_problems));
    }
    for (at, (seen, found)) in seen.iter().zip(&of_groups).enumerate() {
        if at > 0 {
            output.line("")?;
        }
        headline(seen, output)?;
        table(seen, output)?;
        output.findings(found)?;
    }
    if !seen.is_empty() && !found.is_empty() {
        output.line("")?;
    }
    output.findings(found)?;
    if seen.is_empty() && found.is_empty() {
        output.line(format_args!("namespace `{namespace}` has no group"))?;
    }
    Ok(Outcome::of(has_problems))
}

/// A group that could not be read.
pub(crate) fn unreadable(group: &str, failure: &Failure) -> Finding {
    Finding::problem("not_read", format!("group `{group}`: {failure}"), "It was not examined")
}

fn headline(seen: &Observation, output: Output) -> Result<(), Failure> {
    let name = format!("group {}", seen.group());
    if !seen.exists() {
        return output.titled(&name, "");
    }
    let members = count(seen.members().len(), "member");
    if seen.lacks_epoch() {
        return output.titled(&name, format_args!(": {members}, no epoch"));
    }
    let kind = match (seen.hands_over(), seen.is_exclusive()) {
        (true, true) => "exclusive",
        (true, false) => "exclusive among members of this library",
        (false, _) => "no keys are handed over",
    };
    let since = if seen.hands_over() { format!(" for {}", short(age(seen.since()))) } else { String::new() };
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

/// The state of a member in one word.
pub(crate) fn state(member: &ObservedMember) -> &'static str {
    match member.state {
        MemberState::Member if member.is_behind => "behind",
        state => state.as_str(),
    }
}

/// All of an observation.
pub(crate) fn json_of(seen: &Observation, found: &[Finding]) -> Value {
    json!({
        "group": seen.group(),
        "exists": seen.exists(),
        "current": seen.is_current(),
        "problem": seen.problem().map(ToString::to_string),
        "epoch": seen.epoch(),
        "since_ms": seen.hands_over().then(|| ms(seen.since())),
        "hands_over": seen.hands_over(),
        "exclusive": seen.is_exclusive(),
        "paused": seen.is_paused(),
        "label": seen.ring().label().to_string(),
        "replicas": seen.ring().replicas(),
        "digest": format!("{:016x}", seen.ring().digest()),
        "members": seen.members().iter().map(member_json).collect::<Vec<_>>(),
        "pending": seen.pending().iter().map(|it| pending_json(seen, it)).collect::<Vec<_>>(),
        "findings": found.iter().map(Finding::json).collect::<Vec<_>>(),
    })
}

fn member_json(it: &ObservedMember) -> Value {
    json!({
        "id": it.member.id().as_str(),
        "state": state(it),
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
        "why": it.why.as_str(),
        "host": member.and_then(|it| it.host.clone()),
        "pid": member.and_then(|it| it.pid),
    })
}

pub(crate) async fn members(common: &Common, which: &Which, output: Output) -> Result<Outcome, Failure> {
    let seen = observe_one(common, which).await?;
    let found = findings::of_ring(&seen);
    let members = seen.members();
    if output.is_json {
        output.json(&listed(members.iter().map(member_json), members.len(), &found))?;
    } else {
        table(&seen, output)?;
        output.findings(&found)?;
    }
    Ok(Outcome::of(found.iter().any(|it| it.is_problem)))
}

pub(crate) async fn owner(common: &Common, keys: &Keys, output: Output) -> Result<Outcome, Failure> {
    let seen = observe_one(common, &keys.which).await?;
    let mut found = findings::of_ring(&seen);
    let owners: Vec<_> = keys.keys.iter().map(|key| (key, seen.owner(key))).collect();
    for about in owners.iter().filter_map(|(_, owner)| findings::of_member((*owner)?)) {
        if !found.contains(&about) {
            found.push(about);
        }
    }
    let waits = |key: &String| seen.pending_for(key).count() > 0;
    if output.is_json {
        let items = owners.iter().map(|(key, owner)| {
            let (id, state) = (owner.map(|it| it.member.id().as_str()), owner.map(state));
            json!({ "key": key, "owner": id, "state": state, "waits": waits(key) })
        });
        output.json(&listed(items, owners.len(), &found))?;
    } else {
        let rows = owners.iter().map(|(key, owner)| {
            let id = owner.map_or("-", |it| it.member.id().as_str());
            let more = match owner.map(state) {
                _ if waits(key) => "waits: see why".to_owned(),
                Some("member" | "draining") | None => String::new(),
                Some(state) => format!("{state}: see why"),
            };
            vec![(*key).clone(), id.to_owned(), more]
        });
        output.table(&["KEY", "OWNER", ""], rows.collect())?;
        output.findings(&found)?;
    }
    let is_problem = found.iter().any(|it| it.is_problem)
        || owners.iter().any(|(key, owner)| owner.is_none() || waits(key));
    Ok(Outcome::of(is_problem))
}

pub(crate) async fn why(common: &Common, keys: &Keys, output: Output) -> Result<Outcome, Failure> {
    let seen = observe_one(common, &keys.which).await?;
    let answers: Vec<Answer<'_>> = keys.keys.iter().map(|key| Answer::of(&seen, key)).collect();
    let found = findings::of_ring(&seen);
    if output.is_json {
        output.json(&listed(answers.iter().map(|it| it.json(&seen)), answers.len(), &found))?;
    } else {
        for answer in &answers {
            answer.print(output)?;
        }
        // The problems are among the causes.
        let notes: Vec<_> = found.into_iter().filter(|it| !it.is_problem).collect();
        output.findings(&notes)?;
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
        let waits = pending.iter().map(|it| findings::key_waits(seen, key, it));
        let causes = match owner {
            // Without the epochs it is not certain that nothing keeps the owner from acting.
            Some(owner) => findings::of_reading(seen)
                .into_iter()
                .chain(waits)
                .chain(findings::of_member(owner))
                .chain(findings::of_pause(seen))
                .collect(),
            // What is wrong with the group is why.
            None => {
                let of_group = findings::of_group(seen).into_iter().filter(|it| it.is_problem);
                let mut causes: Vec<Finding> = waits.chain(of_group).collect();
                if causes.is_empty() {
                    causes.push(Finding::problem(
                        "no_weight",
                        "no member of the ring can own it: none has a weight",
                        "Give a member a weight, or start one",
                    ));
                }
                causes
            }
        };
        Answer { key, owner, pending, causes }
    }

    fn json(&self, seen: &Observation) -> Value {
        let pending = self.pending.iter().map(|it| {
            let mut value = pending_json(seen, it);
            if it.why == Why::StillAtWork {
                value["guard_of_this_key"] = if it.is_exact(self.key) { true.into() } else { Value::Null };
            }
            value
        });
        json!({
            "key": self.key,
            "owner": self.owner.map(|it| it.member.id().as_str()),
            "state": self.owner.map(state),
            "waits_for": pending.collect::<Vec<_>>(),
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
