//! `watch`: a line for each change of a group.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use apportion::group::{Observation, Observer};

use crate::{
    arguments::{Common, Watch},
    failure::Failure,
    findings,
    group::{chosen_one, json_of, state},
    outcome::Outcome,
    output::{Output, count, percent},
    store::Store,
};

pub(crate) async fn watch(common: &Common, watched: &Watch, output: Output) -> Result<Outcome, Failure> {
    let follow = async |store: &Store| {
        let group = chosen_one(store, &watched.which).await?;
        let coordinator = store.coordinator().await?;
        let ended = match coordinator.observe(&group).await {
            Ok(observer) => follow(observer, watched, output).await,
            Err(error) => Err(error.into()),
        };
        let _ = coordinator.shutdown().await;
        ended
    };
    Store::with(common, follow).await.map(|()| Outcome::Fine)
}

async fn follow(mut observer: Observer, watched: &Watch, output: Output) -> Result<(), Failure> {
    let mut before: Option<Arc<Observation>> = None;
    let following = async {
        let mut left = watched.count.unwrap_or(usize::MAX);
        while left > 0
            && let Some(now) = observer.next().await
        {
            if output.is_json {
                output.json_line(&json_of(&now, &findings::of_group(&now)))?;
                left -= 1;
            } else {
                for change in changes(before.as_deref(), &now).into_iter().take(left) {
                    output.line(change)?;
                    left -= 1;
                }
            }
            before = Some(now);
        }
        Ok::<(), Failure>(())
    };
    // An interrupted watch is no failure.
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(()),
        ended = following => ended,
        () = tokio::time::sleep(watched.limit.unwrap_or(Duration::MAX)) => Ok(()),
    }
}

/// What has changed, in lines.
fn changes(before: Option<&Observation>, now: &Observation) -> Vec<String> {
    let mut lines = Vec::new();
    let states = |seen: &Observation| -> BTreeMap<(String, i64), (&'static str, f64)> {
        let members = seen.members().iter();
        members
            .map(|it| ((it.member.id().to_string(), it.member.incarnation()), (state(it), it.owned)))
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
            Some((was, part)) if was == state => {
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
    if before.is_some_and(Observation::is_paused) != now.is_paused() {
        lines.push(if now.is_paused() { "  paused" } else { "  resumed" }.into());
    }
    match before.map(|before| (before.is_current(), now.is_current())) {
        Some((true, false)) => {
            lines.push("  the connection is lost; this is the last that was known".into());
        }
        Some((false, true)) => lines.push("  the connection is back; this is current".into()),
        _ => {}
    }
    let problem = |seen: &Observation| seen.problem().map(ToString::to_string);
    match (before.and_then(problem), problem(now)) {
        (was, Some(problem)) if was.as_ref() != Some(&problem) => lines.push(format!("  {problem}")),
        (Some(_), None) => lines.push("  the problem has ended".into()),
        _ => {}
    }
    lines
}

#[cfg(test)]
mod tests {
    use apportion::{Config, PartitionCoordinator, backend::Memory};

    use super::*;

    /// What the next changes say, until one of them says this.
    async fn until(observer: &mut Observer, before: &mut Arc<Observation>, said: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let following = async {
            while !lines.iter().any(|line: &String| line.contains(said)) {
                let now = observer.next().await.expect("it goes on");
                lines.extend(changes(Some(&**before), &now));
                *before = now;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(600), following).await;
        assert!(ended.is_ok(), "{said:?} is not said");
        lines
    }

    #[tokio::test(start_paused = true)]
    async fn both_directions_of_a_change_are_said() {
        let memory = Memory::new();
        let connect = async |id: &str| {
            let config = Config::for_backend(memory.clone()).member_id(id);
            PartitionCoordinator::connect(config).await.unwrap()
        };
        let (a, watcher) = (connect("a").await, connect("watcher").await);
        let group = a.join("g").await.unwrap();
        let mut observer = watcher.observe("g").await.unwrap();
        let mut seen = observer.next().await.unwrap();
        assert_eq!(changes(None, &seen)[1], "  a: member, owns 100.0 %");
        memory.expire(watcher.session_id().unwrap());
        until(&mut observer, &mut seen, "the connection is lost").await;
        until(&mut observer, &mut seen, "the connection is back").await;
        group.pause().await.unwrap();
        until(&mut observer, &mut seen, "  paused").await;
        assert!(changes(None, &seen).contains(&"  paused".to_owned()), "one that comes later is told");
        group.resume().await.unwrap();
        until(&mut observer, &mut seen, "  resumed").await;
        // It lives, and does not follow.
        memory.suspend(a.session_id().unwrap());
        let b = connect("b").await;
        let _theirs = b.join("g").await.unwrap();
        until(&mut observer, &mut seen, "  a: behind, owns ").await;
    }
}
