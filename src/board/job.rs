//! [`Job`]: a job of a board, as it was read.

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
    cache::Slot,
    error::BoardError,
    known::Known,
    posting::{self, Posting, Priority, as_text},
    shared::{Handle, Shared},
};
use crate::{
    backend::{self, path::ZnodePath},
    session::read::Denied,
};

/// A job on a board: its posting, and whether it was claimed when it was listed. Cheap to clone. From
/// [`JobBoard::jobs`](super::JobBoard::jobs), [`JobBoard::post`](super::JobBoard::post), a [`Claim`](super::Claim) or a
/// [`BoardEvent`](super::BoardEvent).
#[derive(Clone)]
pub struct Job {
    known: Arc<Known>,
    is_claimed: bool,
    handle: Arc<Handle>,
    /// Decoded at the first use.
    posting: Arc<OnceLock<Posting>>,
}

/// The state of a job. From [`JobBoard::state`](super::JobBoard::state).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum JobState {
    /// It can be claimed.
    Unclaimed,
    /// A worker has claimed it.
    Claimed,
    /// It is off the board: done, or in the trash.
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

    /// The path of its znode.
    pub fn path(&self) -> &ZnodePath {
        &self.known.path
    }

    /// Its uuid; `None` if a foreign poster wrote something that is not a uuid: see [`Posting::uuid`].
    pub fn uuid(&self) -> Option<Uuid> {
        self.known.uuid.as_str()?.parse().ok()
    }

    /// Its name. A name that is not a text is shown as JSON.
    pub fn name(&self) -> Cow<'_, str> {
        as_text(&self.known.name)
    }

    /// Its priority.
    pub fn priority(&self) -> Priority {
        self.known.priority
    }

    /// The details that the poster gave: an object, unless a foreign poster wrote another JSON value. They are decoded
    /// at the first call.
    pub fn details(&self) -> &Value {
        self.posting().details()
    }

    /// The details that the poster gave, as a value of type `T`.
    ///
    /// # Errors
    ///
    /// The error of serde if the details are not a `T`.
    pub fn details_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(self.details())
    }

    /// The whole posting. It is decoded at the first call.
    pub fn posting(&self) -> &Posting {
        let decode = || Posting::decode(&self.known.data).expect("it was decoded when it was read");
        self.posting.get_or_init(decode)
    }

    /// Whether it was claimed when this `Job` was made, for instance by a listing. For its present state see
    /// [`JobBoard::state`](super::JobBoard::state).
    pub fn is_claimed(&self) -> bool {
        self.is_claimed
    }

    /// The time at which it was posted, by the wall clock of the server. For display only.
    pub fn created_on(&self) -> SystemTime {
        wall_clock(self.known.stat.created_ms)
    }

    /// The time before which its poster does not want it to be claimed; `None` if it may be claimed at once.
    pub fn not_before(&self) -> Option<SystemTime> {
        Some(wall_clock(i64::try_from(self.known.not_before?).ok()?))
    }

    /// The time of the last change of its znode before it was read, by the wall clock of the server. A claim counts as
    /// a change. For display only.
    pub fn last_modified(&self) -> SystemTime {
        wall_clock(self.known.stat.modified_ms)
    }

    /// Waits until the job is off the board: done, or in the trash.
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] if the board or the coordinator is closed, [`BoardError::Service`] for errors of the
    /// backend that do not pass by themselves.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_for_end(&self) -> Result<(), BoardError> {
        self.shared().until(|shared| (!shared.cache().has(&self.known)).then_some(())).await
    }
}

/// Two values are equal if they are the same job, not two jobs that had the same name one after the other.
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

/// Reads from the store whether a job is on the board, and the data of its lock, which may be denied.
pub(super) async fn read_state(
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
    /// The state that follows from what [`read_state`] returns.
    pub(super) fn of(is_posted: bool, lock: Option<Result<&[u8], Denied>>) -> Self {
        match lock {
            _ if !is_posted => JobState::Complete,
            Some(Err(Denied)) => JobState::Claimed,
            Some(Ok(lock)) if posting::owner_of(lock).is_some() => JobState::Claimed,
            _ => JobState::Unclaimed,
        }
    }
}

/// A time of the server.
pub(super) fn wall_clock(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs())
}
