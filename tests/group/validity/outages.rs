//! Outages of every length: a share lapses once and is valid again once.

use std::time::Duration;

use apportion::{Group, PartitionCoordinator, backend::Memory, clock::Clock};
use tracing::Level;

use super::{member, share};
use crate::support::{MS, SECOND, events::Events, fleet::Store};

/// How often the share of a member became valid and invalid from now on, sampled for this long.
async fn changes(clock: &dyn Clock, group: &Group, length: Duration) -> Vec<(u128, bool)> {
    let begin = clock.now();
    let mut changes = vec![(0, group.view().owns("alarm-1"))];
    while clock.now().saturating_since(begin) < length {
        tokio::time::sleep(20 * MS).await;
        let owns = group.view().owns("alarm-1");
        if changes.last().is_none_or(|(_, before)| *before != owns) {
            changes.push((clock.now().saturating_since(begin).as_millis(), owns));
        }
    }
    changes
}

/// Cuts the member off and refuses new connections for a while, as a server that is stopped.
async fn outage(ensemble: &Memory, coordinator: &PartitionCoordinator, length: Duration) {
    ensemble.refuse_connections(true);
    if let Some(session) = coordinator.session_id() {
        ensemble.suspend(session);
    }
    tokio::time::sleep(length).await;
    ensemble.refuse_connections(false);
    ensemble.sessions().into_iter().for_each(|session| ensemble.resume(session));
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_of_any_length_a_share_that_is_valid_again_stays_so() {
    after_outages(Store::memory).await;
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_of_any_length_an_immediate_share_that_is_valid_again_stays_so() {
    after_outages(|| Store::memory().immediate()).await;
}

async fn after_outages(store: impl Fn() -> Store) {
    for (phase, tenths) in (1..=240_u32).map(|tenths| (tenths % 7, tenths)) {
        let store = store();
        let (agent, group) = member(&store).await;
        tokio::time::sleep(6 * SECOND + phase * 140 * MS).await;
        let length = tenths * 100 * MS;
        outage(store.ensemble(), &agent.coordinator, length).await;
        let seen = changes(&*store.connector().clock(), &group, 45 * SECOND).await;
        let revivals = seen.iter().skip(1).filter(|(_, owns)| *owns).count();
        let losses = seen.iter().skip(1).filter(|(_, owns)| !*owns).count();
        assert!(revivals <= 1 && losses == 0, "an outage of {length:?} in phase {phase}: {seen:?}");
        assert!(seen.last().unwrap().1, "{length:?}: {seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lapse_is_a_warning_with_the_time_since_the_last_confirmation_and_the_end_of_it_is_logged_too() {
    let events = Events::of("apportion::session::heartbeat");
    let store = Store::memory();
    let (agent, group) = member(&store).await;
    tokio::time::sleep(3500 * MS).await;
    assert_eq!(events.take(Level::WARN).len() + events.take(Level::INFO).len(), 0);
    agent.suspend();
    tokio::time::sleep(8 * SECOND).await;
    let said = events.take(Level::WARN);
    // The heartbeat of the third second was the last.
    assert!(matches!(&said[..], [one] if one.contains("since_confirmation=5")), "{said:?}");
    assert_eq!(events.take(Level::INFO), [""; 0]);
    agent.resume();
    tokio::time::sleep(4 * SECOND).await;
    assert!(share(&group).await.is_valid());
    let said = events.take(Level::INFO);
    assert!(matches!(&said[..], [one] if one.contains("valid_for=")), "{said:?}");
    assert_eq!(events.take(Level::WARN), [""; 0]);
}
