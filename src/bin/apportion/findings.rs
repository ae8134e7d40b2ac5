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
    pub(crate) what: String,
    pub(crate) advice: Option<String>,
}

impl Finding {
    pub(crate) fn problem(what: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { is_problem: true, what: what.into(), advice: Some(advice.into()) }
    }

    pub(crate) fn note(what: impl Into<String>) -> Finding {
        Finding { is_problem: false, what: what.into(), advice: None }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "problem": self.is_problem, "what": self.what, "advice": self.advice })
    }
}

/// How long a member is in a group before it is a problem that no epoch names it: a member publishes within a second.
const JOINING: Duration = Duration::from_secs(2);

/// What is wrong with a group.
pub(crate) fn of_group(seen: &Observation) -> Vec<Finding> {
    let group = seen.group();
    let mut found = Vec::new();
    if let Some(error) = seen.problem() {
        found.push(denied_or_broken(error));
    }
    if !seen.exists() {
        let advice = "No member has ever joined it in this namespace. Check --namespace and --group";
        found.push(Finding::problem(format!("there is no group `{group}`"), advice));
        return found;
    }
    if seen.members().is_empty() && seen.problem().is_none() {
        found.push(Finding::problem(
            format!("group `{group}` has no member, so its keys have no owner"),
            "Start its services",
        ));
    }
    if seen.is_paused() {
        found.push(Finding::problem(
            format!("group `{group}` is paused: no change of its members takes effect"),
            "A member ends that with `Group::resume`",
        ));
    }
    found.extend(seen.pending().iter().map(|pending| waits(seen, pending)));
    found.extend(seen.members().iter().filter_map(|member| of_member(seen, member)));
    let is_tooz = |it: &&ObservedMember| it.member.is_plain() && it.member.announces_weight();
    if seen.ring().label() != Label::Tooz
        && let Some(other) = seen.members().iter().find(is_tooz)
    {
        found.push(Finding::note(format!(
            "member `{}` announces a weight, so it may have the ring of tooz, and this is another one: ceilometer's has \
             32 partitions (--tooz 32)",
            other.member.id()
        )));
    }
    if seen.hands_over() && !seen.is_exclusive() {
        let plain = seen.members().iter().filter(|it| !it.hands_over);
        let names: Vec<_> = plain.map(|it| it.member.id().as_str()).collect();
        found.push(Finding::note(match names.as_slice() {
            [] => "shares are not exclusive: keys wait for a member that is gone and handed no keys over"
                .to_owned(),
            [name] => format!("shares are not exclusive: 1 member hands no keys over ({name})"),
            _ => format!(
                "shares are not exclusive: {} members hand no keys over ({})",
                names.len(),
                names.join(", ")
            ),
        }));
    }
    found
}

fn denied_or_broken(error: &Error) -> Finding {
    let advice = match error {
        Error::NotPermitted { .. } => "Until that is granted, who waits for whom cannot be seen",
        Error::Head { .. } => {
            "No member of this version acts. Upgrade, or delete that znode: its members make a new one"
        }
        Error::RingUnclear { .. } => {
            "No member of this library has a share until that member leaves, or starts as `apportion::guide::coming_from_tooz` says"
        }
        Error::RingMismatch { .. } => {
            "No member of an immediate group has a share until all have one `label` and one number of `replicas`"
        }
        _ => "It is tried again",
    };
    Finding::problem(error.to_string(), advice)
}

fn of_member(seen: &Observation, member: &ObservedMember) -> Option<Finding> {
    let id = member.member.id();
    let waited_for = seen.pending().iter().any(|it| it.member == *id && it.why == Why::NotAcknowledged);
    match member.state {
        MemberState::Gone => Some(Finding::problem(
            format!("member `{id}` is gone, and its {} of the keys have no owner yet", percent(member.owned)),
            "Another member gives them away within a second, unless the group is paused or waits for the member to come back",
        )),
        MemberState::Member if member.is_behind && !waited_for => Some(Finding::problem(
            format!(
                "member `{id}`{} does not follow the newest epoch: its lease has ended, so it does not act, also not on \
                 the {} of the keys that it owns",
                process(member),
                percent(member.owned)
            ),
            "It is stopped, overloaded or cut off. If its process is dead, the end of its session gives its keys away",
        )),
        MemberState::Joining => {
            let since = member.joined.map(age).filter(|age| *age >= JOINING)?;
            Some(Finding::problem(
                format!("member `{id}` has joined {} ago, and no epoch names it", short(since)),
                "Is the group paused? Has it the label and replicas of the others? May its members write the head, beside the namespace? `apportion doctor` tries that",
            ))
        }
        MemberState::Member | MemberState::Warming | MemberState::Draining => None,
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
        format!(
            "{} of the keys wait for member `{member}`{process} for {}: {why}",
            percent_of_positions(*fraction),
            short(age(*since))
        ),
        advice(pending),
    )
}

/// A guard is one position of four thousand million.
fn percent_of_positions(fraction: f64) -> String {
    if fraction < 0.0005 { "some".into() } else { percent(fraction) }
}

pub(crate) fn advice(pending: &PendingHandover) -> &'static str {
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
