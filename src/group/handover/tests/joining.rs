//! What changes while the znode of a member is being created.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    super::{
        settings::Settings,
        state::Handover,
        types::{Action, Event, Head, HeadRead, Outcome, Presence, Purpose, Snapshot, Write},
    },
    fleet::{LEASE, MS, WAIT, id, settings},
};
use crate::{clock::Moment, session::timing::Timing};

/// The member that is ready while its znode is being created: the znode says that it is warming up.
#[test]
fn a_member_that_gets_ready_while_it_joins_says_so() {
    let mut core = Handover::new(Settings { presence: Presence::Warming, ..settings("a") });
    let now = Moment::from_origin(Duration::from_secs(1000));
    let mut created: Option<Arc<Head>> = None;
    let timing = Timing {
        timeout: 2 * LEASE,
        heartbeat: LEASE / 5,
        heartbeat_validity: LEASE,
        margin: WAIT - LEASE,
        server_tick: LEASE / 5,
    };
    let mut events = vec![Event::SessionBegan { asked: now, timing }];
    for step in 0..100 {
        let Some(event) = events.pop() else { break };
        for action in core.step(now + MS * step, 1, event) {
            match action {
                Action::ReadHead => events.push(Event::Head(Ok(created.clone().map(|head| HeadRead {
                    czxid: 1,
                    version: 0,
                    mzxid: 1,
                    head,
                })))),
                Action::ReadSnapshot { .. } => {
                    events.push(Event::Snapshot(Ok(Some(Snapshot { epoch: 0, members: BTreeMap::new() }))));
                }
                Action::Commit { purpose: Purpose::CreateHead, writes } => {
                    let head = writes.into_iter().find_map(|write| match write {
                        Write::CreateHead { head } => Some(head),
                        _ => None,
                    });
                    created = head;
                    events.push(Event::Committed { purpose: Purpose::CreateHead, outcome: Outcome::Applied });
                }
                Action::Rejoin => {
                    assert_eq!(core.part().presence, Presence::Warming, "what is being created");
                    // The first is the next.
                    events.extend([Event::Joined { czxid: 2, version: 0 }, Event::Ready]);
                }
                Action::Commit { purpose: Purpose::Own, writes } => {
                    let says = |write: &Write| matches!(write, Write::SetOwn { part, .. } if part.presence == Presence::Ready);
                    assert!(writes.iter().any(says), "{writes:?}");
                    assert_eq!(core.me().unwrap().id, id("a"));
                    return;
                }
                _ => {}
            }
        }
    }
    panic!("its znode says that it is warming up for ever");
}
