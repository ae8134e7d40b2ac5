//! [`Finding`]: what is wrong with a group, as its observation shows it.

use std::time::Duration;

use apportion::{
    Error, Label,
    group::{MemberState, Observation, ObservedMember, PendingHandover, Why},
    serde_json::{Value, json},
};

use crate::{
    output::percent,
    time::{age, short},
};

/// What a command has found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Whether it is wrong, not only worth knowing.
    pub(crate) is_problem: bool,
    /// A word for programs, which stays when the text changes.
    pub(crate) code: &'static str,
    pub(crate) what: String,
    pub(crate) advice: Option<String>,
}

impl Finding {
    pub(crate) fn problem(code: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { is_problem: true, code, what: what.into(), advice: Some(advice.into()) }
    }

    pub(crate) fn note(code: &'static str, what: impl Into<String>) -> Finding {
        Finding { is_problem: false, code, what: what.into(), advice: None }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "problem": self.is_problem, "code": self.code, "what": self.what, "advice": self.advice })
    }
}

/// How long a member is in a group before it is a problem that no epoch names it: a member publishes within a second.
const JOINING: Duration = Duration::from_secs(2);

/// What is wrong with a group, the problems first.
pub(crate) fn of_group(seen: &Observation) -> Vec<Finding> {
    let group = seen.group();
    let mut found = of_ring(seen);
    found.extend(of_pause(seen));
    found.extend(seen.pending().iter().map(|pending| waits(seen, pending)));
    let waited_for = |member: &ObservedMember| {
        let id = member.member.id();
        seen.pending().iter().any(|it| it.member == *id && it.why == Why::NotAcknowledged)
    };
    let is_said = |member: &ObservedMember, it: &Finding| match it.code {
        "behind" => waited_for(member),
        "joining" => seen.lacks_epoch(),
        _ => false,
    };
    let of_members = seen.members().iter().filter_map(|member| {
        let found = of_member(member)?;
        (!is_said(member, &found)).then_some(found)
    });
    found.extend(of_members);
    if seen.hands_over() && !seen.is_exclusive() {
        let plain = seen.members().iter().filter(|it| !it.hands_over);
        let names: Vec<_> = plain.map(|it| it.member.id().as_str()).collect();
        let what = match names.as_slice() {
            [] => "shares are not exclusive: keys wait for a member that is gone and handed no keys over"
                .to_owned(),
            [name] => format!("shares are not exclusive: 1 member hands no keys over ({name})"),
            _ => format!(
                "shares are not exclusive: {} members hand no keys over ({})",
                names.len(),
                names.join(", ")
            ),
        };
        found.push(Finding::note("not_exclusive", format!("group `{group}`: {what}")));
    }
    found.sort_by_key(|it| !it.is_problem);
    found
}

/// What makes an answer about owners wrong or not certain, for each command that says who owns what.
pub(crate) fn of_ring(seen: &Observation) -> Vec<Finding> {
    let group = seen.group();
    let mut found: Vec<Finding> = of_reading(seen).into_iter().collect();
    if !seen.exists() {
        let advice = "No member has ever joined it in this namespace. Check --namespace and --group";
        found.push(Finding::problem("no_group", format!("there is no group `{group}`"), advice));
        return found;
    }
    if seen.members().is_empty() && seen.problem().is_none() {
        found.push(Finding::problem(
            "no_member",
            format!("group `{group}` has no member, so its keys have no owner"),
            "Start its services",
        ));
    }
    if seen.lacks_epoch() {
        found.push(Finding::problem(
            "no_epoch",
            format!("no epoch names the members of group `{group}`, so none of those that hand keys over acts"),
            "The first members publish one within seconds. May they write the head, beside the namespace? Run \
             `apportion doctor` with their URL",
        ));
    }
    // The head names the ring, and so does each member of this library.
    if !seen.hands_over()
        && !seen.members().is_empty()
        && seen.members().iter().all(|it| it.member.is_plain())
    {
        found.push(Finding::note(
            "ring_assumed",
            format!(
                "no member says which ring it has: assumed is the one of label `{}` with {} replicas. --aodh and \
                 --tooz PARTITIONS assume others",
                seen.ring().label(),
                seen.ring().replicas()
            ),
        ));
    }
    let is_tooz = |it: &&ObservedMember| it.member.is_plain() && it.member.announces_weight();
    if seen.ring().label() != Label::Tooz
        && let Some(other) = seen.members().iter().find(is_tooz)
    {
        found.push(Finding::note(
            "tooz_ring",
            format!(
                "member `{}` announces a weight, so it may have the ring of tooz, and this is another one: ceilometer's \
                 has 32 partitions (--tooz 32)",
                other.member.id()
            ),
        ));
    }
    found
}

/// What keeps the command from seeing all of the group.
pub(crate) fn of_reading(seen: &Observation) -> Option<Finding> {
    let error = seen.problem()?;
    let (code, advice) = match error {
        Error::NotPermitted { .. } => ("denied", "Until that is granted, who waits for whom cannot be seen"),
        Error::Head { .. } => (
            "head",
            "No member of this version acts. Upgrade, or delete that znode: its members make a new one",
        ),
        Error::RingUnclear { .. } => (
            "ring_unclear",
            "No member of this library has a share until that member leaves, or starts as `apportion::guide::coming_from_tooz` says",
        ),
        Error::RingMismatch { .. } => (
            "ring_mismatch",
            "No member of an immediate group has a share until all have one `label` and one number of `replicas`",
        ),
        _ => ("not_read", "It is tried again"),
    };
    Some(Finding::problem(code, error.to_string(), advice))
}

/// Whether an operator has paused the group.
pub(crate) fn of_pause(seen: &Observation) -> Option<Finding> {
    seen.is_paused().then(|| {
        Finding::problem(
            "paused",
            format!("group `{}` is paused: no change of its members takes effect", seen.group()),
            "A member ends that with `Group::resume`",
        )
    })
}

/// What is wrong with a member.
pub(crate) fn of_member(member: &ObservedMember) -> Option<Finding> {
    let id = member.member.id();
    match member.state {
        MemberState::Gone => Some(Finding::problem(
            "gone",
            format!("member `{id}` is gone, and its {} of the keys have no owner yet", percent(member.owned)),
            "Another member gives them away within a second, unless the group is paused or waits for the member to come back",
        )),
        MemberState::Member if member.is_behind => Some(Finding::problem(
            "behind",
            format!(
                "member `{id}`{} does not follow the newest epoch: from the end of its lease on it does not act, also not \
                 on the {} of the keys that it owns",
                process(member),
                percent(member.owned)
            ),
            "It is stopped, overloaded or cut off. If its process is dead, the end of its session gives its keys away",
        )),
        MemberState::Joining => {
            let since = member.joined.map(age).filter(|age| *age >= JOINING)?;
            Some(Finding::problem(
                "joining",
                format!("member `{id}` has joined {} ago, and no epoch names it", short(since)),
                "Is the group paused? Has it the label and replicas of the others? May its members write the head, beside the namespace? `apportion doctor` tries that",
            ))
        }
        _ => None,
    }
}

/// ` on host h, pid 17`, if that is known.
pub(crate) fn process(member: &ObservedMember) -> String {
    match (&member.host, member.pid) {
        (Some(host), Some(pid)) => format!(" on host {host}, pid {pid},"),
        _ => String::new(),
    }
}

/// The member of which a pending handover is about.
pub(crate) fn member_of<'a>(seen: &'a Observation, pending: &PendingHandover) -> Option<&'a ObservedMember> {
    let same = |it: &&ObservedMember| {
        *it.member.id() == pending.member && it.member.incarnation() == pending.incarnation
    };
    seen.members().iter().find(same)
}

/// Keys wait for a member.
fn waits(seen: &Observation, pending: &PendingHandover) -> Finding {
    let process = member_of(seen, pending).map(process).unwrap_or_default();
    let PendingHandover { member, fraction, since, why, .. } = pending;
    Finding::problem(
        why.as_str(),
        format!(
            "{} of the keys wait for member `{member}`{process} for at least {}: {why}",
            percent_of_positions(*fraction),
            short(age(*since))
        ),
        advice(pending),
    )
}

/// A key waits for a member.
pub(crate) fn key_waits(seen: &Observation, key: &String, pending: &PendingHandover) -> Finding {
    let member = member_of(seen, pending);
    let process = member.map(process).unwrap_or_default();
    let session = match member.and_then(|it| it.session).filter(|_| pending.is_present) {
        Some(session) => format!("its session {session} lives"),
        None if pending.is_present => "its session lives".into(),
        None => "its session has ended".into(),
    };
    let PendingHandover { member, since, why, .. } = pending;
    let why = match why {
        Why::StillAtWork if pending.is_exact(key) => "a guard of this key is held there".to_owned(),
        Why::StillAtWork => {
            "it still works on more than 64 lost items; whether on this one is not known".to_owned()
        }
        _ => why.to_string(),
    };
    let what = format!(
        "it waits for member `{member}`{process} for at least {}: {why}; {session}",
        short(age(*since))
    );
    Finding::problem(pending.why.as_str(), what, advice(pending))
}

/// A guard is one position of four thousand million.
fn percent_of_positions(fraction: f64) -> String {
    if fraction < 0.0005 { "some".into() } else { percent(fraction) }
}

fn advice(pending: &PendingHandover) -> &'static str {
    match pending.why {
        Why::NotAcknowledged => {
            "They wait until its lease has ended, at most a session timeout. It is stopped, overloaded or cut off"
        }
        Why::StillAtWork => {
            "A guard of it is still held. It ends with the work, or after max_drain, or with its process: look into the \
             member"
        }
        Why::Plain => "It says nothing of its work, so they wait for plain_grace",
        _ => "They wait until its lease has certainly ended",
    }
}
