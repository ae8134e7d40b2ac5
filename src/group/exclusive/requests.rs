//! What the handover asks of the store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::{join, join_all};

use super::watches::Watched;
use crate::{
    backend::{self, CommitError, Stat, Watch, Znode},
    group::handover::{
        Action, Event, GroupStat, HeadRead, Listing, Outcome, Places, Purpose, ReadError, Refusal, Write,
    },
    member::MemberId,
    session::{
        Live,
        read::{Denied, Sizes, read_each},
        requests::ensure,
    },
};

/// How many watches are set at the same time.
const WATCHED_AT_ONCE: usize = 64;

/// The store, as one session of one member uses it.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pub(super) live: Arc<Live>,
    pub(super) places: Arc<Places>,
    sizes: Arc<Sizes>,
    /// The head as it was read last in this session. All members read it again now and then, and it is large.
    head: Arc<Mutex<Option<HeadRead>>>,
}

/// The answer to a request, and the watches that were set with it.
pub(super) struct Answer {
    pub(super) event: Event,
    pub(super) watches: Vec<(Watched, Watch)>,
}

impl From<Event> for Answer {
    fn from(event: Event) -> Self {
        Answer { event, watches: Vec::new() }
    }
}

impl Store {
    pub(super) fn new(live: Arc<Live>, places: Arc<Places>) -> Store {
        Store { live, places, sizes: Arc::default(), head: Arc::default() }
    }

    /// Does `action`, which is one of those that have an answer. What is in `watched` has a watch that has not fired.
    ///
    /// Does not end if the session has ended: then there is no answer.
    pub(super) async fn ask(self, action: Action, watched: Vec<Watched>) -> Answer {
        let has = |one: &Watched| watched.contains(one);
        match action {
            Action::ReadHead => self.read_head(!has(&Watched::Head)).await,
            Action::ReadSnapshot { name } => {
                let path = self.places.snapshot(name);
                let read = self.live.session.get(&path).await;
                let snapshot = match self.answered(read).await {
                    Ok(Some(found)) => Places::read_snapshot(&found).map(Some).map_err(ReadError::Format),
                    other => other.map(|_| None),
                };
                Event::Snapshot(snapshot).into()
            }
            Action::ReadMembers { ids } => {
                let new = ids.iter().filter(|id| !has(&Watched::Member((*id).clone()))).cloned().collect();
                self.read_members(ids, new).await
            }
            Action::ListMembers { watch } => {
                let mut watches = Vec::new();
                let listed = self.list(watch, &mut watches).await;
                Answer { event: Event::Listed(self.answered(listed).await), watches }
            }
            Action::StatGroup { watch } => {
                let mut watches = Vec::new();
                let stat = self.stat(watch, &mut watches).await;
                let stat = self.answered(stat).await.map(|stat| GroupStat {
                    pzxid: stat.pzxid,
                    children: usize::try_from(stat.num_children).unwrap_or(0),
                });
                Answer { event: Event::GroupStat(stat), watches }
            }
            Action::ReadOwn => {
                let read = self.live.read_back(&self.places.own).await;
                let own = match self.answered(read).await {
                    Ok(Ok(found)) => Ok(found.and_then(|found| self.places.read_member(&found))),
                    Ok(Err(Denied)) => Err(ReadError::NotPermitted),
                    Err(error) => Err(error),
                };
                Event::Own(own).into()
            }
            Action::Commit { purpose, writes } => {
                let outcome = self.commit(purpose, &writes).await;
                Event::Committed { purpose, outcome }.into()
            }
            other => unreachable!("{other:?} is no request"),
        }
    }

    /// What a read has led to. After the end of the session there is no answer.
    async fn answered<T>(&self, read: Result<T, backend::Error>) -> Result<T, ReadError> {
        match read {
            Ok(found) => Ok(found),
            Err(backend::Error::NotPermitted) => Err(ReadError::NotPermitted),
            Err(backend::Error::Lost(_)) => std::future::pending().await,
            Err(_) => Err(ReadError::Failed),
        }
    }

    /// `has_changed`: its watch has fired, or there was none.
    async fn read_head(&self, has_changed: bool) -> Answer {
        let path = &self.places.head;
        let mut watches = Vec::new();
        let read = async {
            let session = &*self.live.session;
            // The watch first, so that no change after the read is missed.
            let (set, found) = if has_changed {
                let (set, found) = join(session.watch_node(path), session.get(path)).await;
                (set?, Some(found?))
            } else {
                (session.watch_node(path).await?, None)
            };
            let (stat, watch) = set;
            watches.push((Watched::Head, watch));
            let Some(stat) = stat else { return Ok(None) };
            if let Some(found) = found.filter(|found| !is_older(found.as_ref(), Some(&stat))) {
                return Ok(found.map(|found| Places::read_head(&found)));
            }
            let known = self.head.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let is_known = |known: &HeadRead| {
                (known.czxid, known.version, known.mzxid) == (stat.czxid, stat.version, stat.mzxid)
            };
            if let Some(known) = known.filter(is_known) {
                return Ok(Some(Ok(known)));
            }
            let found = session.get(path).await?;
            Ok(found.map(|found| Places::read_head(&found)))
        };
        let read = read.await;
        let head = match self.answered(read).await {
            Ok(Some(Ok(head))) => {
                *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(head.clone());
                Ok(Some(head))
            }
            Ok(Some(Err(error))) => Err(ReadError::Format(error)),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        Answer { event: Event::Head(head), watches }
    }

    /// Reads `ids`, and sets a watch on those that are `new`.
    async fn read_members(&self, ids: Vec<MemberId>, new: Vec<MemberId>) -> Answer {
        let mut watches = Vec::new();
        let session = &*self.live.session;
        let read = async {
            let paths: Vec<_> = ids.iter().map(|id| self.places.member(id)).collect();
            let set = async {
                let mut set = BTreeMap::new();
                for some in new.chunks(WATCHED_AT_ONCE) {
                    let paths: Vec<_> = some.iter().map(|id| self.places.member(id)).collect();
                    let some_set = join_all(paths.iter().map(|path| session.watch_node(path))).await;
                    set.extend(some.iter().cloned().zip(some_set));
                }
                set
            };
            let (mut set, found) = if new.len() <= WATCHED_AT_ONCE {
                // The watches first, so that no change after the read is missed.
                let (set, found) = join(set, read_each(session, &paths, &self.sizes)).await;
                (set, Some(found?))
            } else {
                (set.await, None)
            };
            let mut is_late = found.is_none();
            let mut found = found.unwrap_or_else(|| vec![Ok(None); ids.len()]);
            for (id, found) in ids.iter().zip(&found) {
                match set.remove(id) {
                    Some(Ok((stat, watch))) => {
                        watches.push((Watched::Member(id.clone()), watch));
                        is_late |= found.as_ref().is_ok_and(|found| is_older(found.as_ref(), stat.as_ref()));
                    }
                    Some(Err(backend::Error::NotPermitted)) | None => {}
                    Some(Err(error)) => return Err(error),
                }
            }
            if is_late {
                found = read_each(session, &paths, &self.sizes).await?;
            }
            Ok(found)
        };
        let read = read.await;
        let members = self.answered(read).await.map(|found| {
            let known = ids.into_iter().zip(found).filter_map(|(id, found)| {
                // Of one to which permission is denied nothing is known, not even whether it is gone.
                Some((id, found.ok()?.and_then(|found| self.places.read_member(&found))))
            });
            known.collect()
        });
        Answer { event: Event::Members(members), watches }
    }

    async fn list(
        &self,
        watch: bool,
        watches: &mut Vec<(Watched, Watch)>,
    ) -> Result<Listing, backend::Error> {
        let session = &*self.live.session;
        let (names, stat) = if watch {
            let (names, stat, watch) = session.watch_children(&self.places.group).await?;
            watches.push((Watched::Children, watch));
            (names, stat)
        } else {
            session.children(&self.places.group).await?
        };
        let ids: Vec<_> = names.iter().filter_map(|name| MemberId::new(name).ok()).collect();
        let paths: Vec<_> = ids.iter().map(|id| self.places.member(id)).collect();
        let found = read_each(session, &paths, &self.sizes).await?;
        let members = ids.into_iter().zip(found).filter_map(|(id, found)| match found {
            Ok(found) => Some((id, self.places.read_member(&found?)?)),
            Err(Denied) => Some((id, self.places.denied())),
        });
        Ok(Listing { pzxid: stat.pzxid, members: members.collect() })
    }

    async fn stat(&self, watch: bool, watches: &mut Vec<(Watched, Watch)>) -> Result<Stat, backend::Error> {
        let session = &*self.live.session;
        if watch {
            let (_, stat, watch) = session.watch_children(&self.places.group).await?;
            watches.push((Watched::Children, watch));
            return Ok(stat);
        }
        session.get(&self.places.group).await?.map(|(_, stat)| stat).ok_or(backend::Error::NoNode)
    }

    async fn commit(&self, purpose: Purpose, writes: &[Write]) -> Outcome {
        let Ok(ops) = self.places.ops(writes) else {
            return Outcome::Refused { index: 0, why: Refusal::TooLarge };
        };
        let session = &*self.live.session;
        let mut done = session.commit(ops.clone()).await;
        let is_missing = matches!(done, Err(CommitError { index: Some(0), error: backend::Error::NoNode }));
        if purpose == Purpose::CreateHead
            && is_missing
            && let Some(folder) = self.places.head.parent()
        {
            if let Err(failure) = ensure(session, &folder).await {
                return refused(0, failure.error).await;
            }
            done = session.commit(ops).await;
        }
        match done {
            Ok(_) => Outcome::Applied,
            Err(CommitError { index, error }) => match index {
                Some(index) => refused(index, error).await,
                None if matches!(error, backend::Error::Unknown(_)) => Outcome::Unknown,
                None => refused(0, error).await,
            },
        }
    }
}

/// Whether what was read is older than what a watch was set on. They are asked for together, and in this order, so it is
/// not, unless something on the way has changed their order.
fn is_older(found: Option<&Znode>, watched: Option<&Stat>) -> bool {
    match (found, watched) {
        (Some((_, read)), Some(watched)) => read.mzxid < watched.mzxid,
        (None, None) => false,
        // It has come or gone between the two: which of them is newer is not known.
        (Some(_), None) | (None, Some(_)) => true,
    }
}

async fn refused(index: usize, error: backend::Error) -> Outcome {
    let why = match error {
        backend::Error::Lost(_) => std::future::pending().await,
        backend::Error::NoNode => Refusal::NoNode,
        backend::Error::BadVersion => Refusal::BadVersion,
        backend::Error::NodeExists => Refusal::NodeExists,
        backend::Error::NotPermitted => Refusal::NotPermitted,
        backend::Error::TooLarge { .. } => Refusal::TooLarge,
        backend::Error::Unreachable(_) | backend::Error::Unknown(_) => return Outcome::Failed,
        _ => Refusal::Other,
    };
    Outcome::Refused { index, why }
}
