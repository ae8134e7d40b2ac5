//! [`Job`]: one thing to do, as it was last seen.

use std::{
    borrow::Cow,
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use super::{
    cache::{Known, Slot},
    error::BoardError,
    posting::{self, Posting, Priority, as_text},
    shared::{Handle, Shared},
};
use crate::{
    backend::{self, path::ZnodePath},
    session::read::Denied,
};

/// A job on a board: what its posting says, and whether it was claimed when it was listed. Cheap to clone.
#[derive(Clone)]
pub struct Job {
    known: Arc<Known>,
    is_claimed: bool,
    handle: Arc<Handle>,
    /// Decoded when it is asked for.
    posting: Arc<OnceLock<Posting>>,
}

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum JobState {
    /// It waits for somebody.
    Unclaimed,
    /// Somebody works on it.
    Claimed,
    /// It is off the board: done, or given up for good.
    Complete,
}

impl fmt::Display for JobState {
    /// As TaskFlow spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobState::Unclaimed => "UNCLAIMED",
            JobState::Claimed => "CLAIMED",
            JobState::Complete => "COMPLETE",
        })
    }
}

impl Job {
    pub(super) fn new(known: Arc<Known>, is_claimed: bool, handle: Arc<Handle>) -> Self {
        Job { known, is_claimed, handle, posting: Arc::default() }
    }

    pub(super) fn of(slot: &Slot, handle: &Arc<Handle>) -> Self {
        Job::new(slot.known.clone(), slot.is_claimed, handle.clone())
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    pub(super) fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// Its znode.
    pub fn path(&self) -> &ZnodePath {
        &self.known.path
    }

    /// Its uuid, unless a foreign poster gave it another kind of identity: see [`Posting::uuid`].
    pub fn uuid(&self) -> Option<Uuid> {
        self.known.uuid.as_str()?.parse().ok()
    }

    /// Its name; one that is not a text as JSON.
    pub fn name(&self) -> Cow<'_, str> {
        as_text(&self.known.name)
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        self.known.priority
    }

    /// What the poster has to say about the work.
    pub fn details(&self) -> &Value {
        self.posting().details()
    }

    /// What the poster has to say about the work, as a value of the caller's own type.
    ///
    /// # Errors
    ///
    /// What serde says if it is none.
    pub fn details_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(self.details())
    }

    /// All that is written about it.
    pub fn posting(&self) -> &Posting {
        let decode = || Posting::decode(&self.known.data).expect("it was decoded when it was read");
        self.posting.get_or_init(decode)
    }

    /// Whether it was claimed when this was made, for instance by a listing: see [`JobBoard::state`] for now.
    pub fn is_claimed(&self) -> bool {
        self.is_claimed
    }

    /// When it was posted, by the wall clock of the server. For display only.
    pub fn created_on(&self) -> SystemTime {
        wall_clock(self.known.stat.created_ms)
    }

    /// When its znode was last changed before it was read, by the wall clock of the server; a claim counts as a
    /// change. For display only.
    pub fn last_modified(&self) -> SystemTime {
        wall_clock(self.known.stat.modified_ms)
    }

    /// Waits until the job is off the board: done, or given up for good.
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] if the board or the coordinator is closed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_for_end(&self) -> Result<(), BoardError> {
        self.shared().until(|shared| (!shared.cache().has(&self.known)).then_some(())).await
    }
}

/// Whether both are the same posting, not two that had one name after another.
impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.known.is_same(&other.known)
    }
}

impl Eq for Job {}

impl Hash for Job {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.path(), self.known.stat.czxid).hash(state);
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("path", self.path())
            .field("posting", self.posting())
            .field("is_claimed", &self.is_claimed)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` at {}", self.name(), self.path())
    }
}

/// Whether a job is there, and what its lock says, read from the store. A lock that is denied to us is one of which it is
/// not known what it says.
pub(super) async fn look(
    shared: &Shared,
    known: &Known,
) -> Result<(bool, Option<Result<Vec<u8>, Denied>>), BoardError> {
    let paths = [known.path.clone(), known.lock.clone()];
    let found = shared
        .read(&known.path, move |live| {
            let paths = paths.clone();
            Box::pin(async move {
                let [job, lock] = &paths;
                live.session.sync(job).await?;
                match live.session.get_many(&paths).await {
                    Ok(found) => Ok(found.into_iter().map(Ok).collect()),
                    Err(backend::Error::NotPermitted) => {
                        let job = live.session.get(job).await?;
                        let lock = match live.session.get(lock).await {
                            Err(backend::Error::NotPermitted) => Err(Denied),
                            lock => Ok(lock?),
                        };
                        Ok(vec![Ok(job), lock])
                    }
                    Err(error) => Err(error),
                }
            })
        })
        .await?;
    let mut found = found.into_iter();
    let posted = found.next().and_then(Result::ok).flatten();
    let is_posted = posted.is_some_and(|(_, stat)| stat.czxid == known.stat.czxid);
    let lock = found.next().and_then(Result::transpose);
    Ok((is_posted, lock.map(|lock| lock.map(|(lock, _)| lock))))
}

impl JobState {
    /// What [`look`] says of a job.
    pub(super) fn of(is_posted: bool, lock: Option<Result<&[u8], Denied>>) -> Self {
        match lock {
            _ if !is_posted => JobState::Complete,
            Some(Err(Denied)) => JobState::Claimed,
            Some(Ok(lock)) if posting::owner_of(lock).is_some() => JobState::Claimed,
            _ => JobState::Unclaimed,
        }
    }
}

fn wall_clock(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs())
}
