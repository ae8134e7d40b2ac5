//! `watch`: a line for each change of a group.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use apportion::group::{MemberState, Observation};

use crate::{
    arguments::{Common, Watch},
    failure::Failure,
    findings,
    group::{chosen_one, json_of},
    outcome::Outcome,
    output::{Output, count, percent},
    store::Store,
};

pub(crate) async fn watch(common: &Common, watched: &Watch, output: Output) -> Result<Outcome, Failure> {
    let store = Store::open(common).await?;
    let group = chosen_one(&store, &watched.which).await?;
    let coordinator = store.coordinator().await?;
    let mut observer = coordinator.observe(&group).await?;
    let mut before: Option<Arc<Observation>> = None;
    let following = async {
        let mut lines = 0;
        while let Some(now) = observer.next().await {
            let changes = changes(before.as_deref(), &now);
            if output.is_json {
                output.json_line(&json_of(&now, &findings::of_group(&now)))?;
                lines += 1;
            } else {
                for change in changes {
                    output.line(change)?;
                    lines += 1;
                }
            }
            before = Some(now);
            if watched.count.is_some_and(|count| lines >= count) {
                return Ok(());
            }
        }
        Ok::<(), Failure>(())
    };
    // An interrupted watch is no failure.
    let ended = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(()),
        ended = following => ended,
        () = tokio::time::sleep(watched.limit.unwrap_or(Duration::MAX)) => Ok(()),
    };
    let _ = coordinator.shutdown().await;
    store.close().await;
    ended.map(|()| Outcome::Fine)
}

/// What has changed, in lines.
fn changes(before: Option<&Observation>, now: &Observation) -> Vec<String> {
    let mut lines = Vec::new();
    let states = |seen: &Observation| -> BTreeMap<(String, i64), (MemberState, f64)> {
        let members = seen.members().iter();
        members
            .map(|it| ((it.member.id().to_string(), it.member.incarnation()), (it.state, it.owned)))
            .collect()
    };
    let (old, new) = (before.map(states).unwrap_or_default(), states(now));
    if before.is_none_or(|before| before.epoch() != now.epoch() || before.exists() != now.exists()) {
        lines.push(match now.exists() {
            true => format!("epoch {}: {}", now.epoch(), count(now.members().len(), "member")),
            false => format!("group `{}` does not exist", now.group()),
        });
    }
    for (who, (state, owned)) in &new {
        match old.get(who) {
            Some((was, part)) if was == state && (part - owned).abs() < 1e-9 => {}
            Some((_, part)) if *state == MemberState::Member => {
                lines.push(format!("  {}: {} -> {}", who.0, percent(*part), percent(*owned)));
            }
            _ => lines.push(format!("  {}: {state}, owns {}", who.0, percent(*owned))),
        }
    }
    let left = old.keys().filter(|who| !new.contains_key(*who));
    lines.extend(left.map(|who| format!("  {}: left", who.0)));
    let waits = |seen: &Observation| -> Vec<String> {
        let pending = seen.pending().iter();
        pending.map(|it| format!("keys wait for {}: {}", it.member, it.why)).collect()
    };
    let (were, are) = (before.map(waits).unwrap_or_default(), waits(now));
    lines.extend(are.iter().filter(|line| !were.contains(line)).map(|line| format!("  {line}")));
    if !were.is_empty() && are.is_empty() {
        lines.push("  no key waits".into());
    }
    if before.is_some_and(|before| before.is_paused() != now.is_paused()) {
        lines.push(if now.is_paused() { "  paused" } else { "  resumed" }.into());
    }
    if before.is_some_and(|before| before.is_current() && !now.is_current()) {
        lines.push("  the connection is lost; this is the last that was known".into());
    }
    let problem = |seen: &Observation| seen.problem().map(ToString::to_string);
    if let Some(problem) = problem(now).filter(|it| before.and_then(problem).as_ref() != Some(it)) {
        lines.push(format!("  {problem}"));
    }
    lines
}
