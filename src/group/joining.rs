//! The requests with which a member creates, takes over and deletes its znode.

use super::{
    engine::{Action, Event, Occupant},
    member::Payload,
    process,
};
use crate::{
    backend::{self, CommitError, CreateMode, Done, Op, Session, Watch, path::ZnodePath},
    error::Error,
    session::requests::ensure,
};

/// What an action has led to.
pub(crate) struct Outcome {
    pub(crate) event: Event,
    pub(crate) watch: Option<Watch>,
}

impl From<Event> for Outcome {
    fn from(event: Event) -> Self {
        Outcome { event, watch: None }
    }
}

/// The znode of a member, and what it writes into it.
pub(crate) struct Znode<'a> {
    pub(crate) group: &'a ZnodePath,
    pub(crate) own: &'a ZnodePath,
    pub(crate) payload: Vec<u8>,
}

impl Znode<'_> {
    /// Does `action`, which is none of those that list the group.
    pub(crate) async fn perform(self, session: &dyn Session, action: Action) -> Outcome {
        let outcome = match action {
            Action::CreateGroup => match ensure(session, self.group).await {
                Ok(()) => Ok(Event::GroupReady.into()),
                Err(failure) => {
                    let shown = failure.clone().into_error(self.group);
                    return Event::Failed(failure.error, shown).into();
                }
            },
            Action::Join => self.join(session, None).await,
            Action::TakeOver { version } => self.join(session, Some(version)).await,
            Action::Inspect => self.inspect(session).await,
            Action::Leave => self.leave(session).await.map(|()| Event::HasLeft.into()),
            Action::List | Action::Check => unreachable!("the driver lists the group"),
        };
        outcome.unwrap_or_else(|error| failed(error, self.own))
    }

    /// Creates and sets our znode in one transaction: the stat of the set has the right creation zxid and owner.
    ///
    /// A late write of the session that had the znode before may still arrive, and it names a path and a data version
    /// only. So the new znode is set until its version is beyond any that such a write can expect.
    async fn join(&self, session: &dyn Session, over: Option<i32>) -> Result<Outcome, backend::Error> {
        let takes_over = over.map(|version| Op::delete(self.own, Some(version)));
        let mut ops: Vec<Op> = takes_over.into_iter().collect();
        ops.push(Op::create(self.own, [], CreateMode::Ephemeral));
        let least = over.map_or(0, |version| version.saturating_add(1));
        ops.extend((0..least).map(|_| Op::set(self.own, [], None)));
        ops.push(Op::set(self.own, self.payload.clone(), None));
        match session.commit(ops).await {
            Ok(done) => match done.last() {
                Some(Done::Set(stat)) => {
                    Ok(Event::Joined { czxid: stat.czxid, version: stat.version }.into())
                }
                other => Err(backend::Error::Other(format!("a join ended with {other:?}"))),
            },
            Err(CommitError { error: backend::Error::NodeExists | backend::Error::BadVersion, .. }) => {
                Ok(Event::Occupied.into())
            }
            // The znode to take over is gone already: the next attempt can create ours.
            Err(CommitError { index: Some(0), error: backend::Error::NoNode }) if over.is_some() => {
                Ok(Event::Occupied.into())
            }
            Err(CommitError { error: backend::Error::NoNode, .. }) => Ok(Event::GroupMissing.into()),
            Err(CommitError { error, .. }) => Err(error),
        }
    }

    /// Reads the znode that has the path of ours. Its watch fires when it is gone.
    async fn inspect(&self, session: &dyn Session) -> Result<Outcome, backend::Error> {
        // The watch first, so that no change after the read is missed.
        let (_, watch) = session.watch_node(self.own).await?;
        let occupant = session.get(self.own).await?.map(|(data, stat)| {
            let payload = Payload::decode(&data);
            Occupant {
                owner: stat.ephemeral_owner,
                czxid: stat.czxid,
                version: stat.version,
                created_ms: stat.created_ms,
                dead: payload.process().is_some_and(process::is_dead),
                payload,
            }
        });
        Ok(Outcome { event: Event::Occupant(occupant), watch: Some(watch) })
    }

    async fn leave(&self, session: &dyn Session) -> Result<(), backend::Error> {
        let Some((_, stat)) = session.get(self.own).await? else { return Ok(()) };
        if stat.ephemeral_owner != Some(session.id()) {
            return Ok(());
        }
        match session.commit(vec![Op::delete(self.own, Some(stat.version))]).await {
            Ok(_) | Err(CommitError { error: backend::Error::NoNode, .. }) => Ok(()),
            Err(CommitError { error, .. }) => Err(error),
        }
    }
}

/// The outcome of an action that failed at `path`.
pub(crate) fn failed(error: backend::Error, path: &ZnodePath) -> Outcome {
    let shown = Error::from_backend(error.clone(), path);
    Event::Failed(error, shown).into()
}
