//! [`Post`]: posts a job exactly once.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::debug;
use uuid::Uuid;

use super::{
    cache::Mark,
    error::BoardError,
    job::Job,
    known::Known,
    layout::Child,
    posting::{Posting, PostingError, Priority, max_posting_bytes},
    shared::{Handle, Shared},
};
use crate::{
    backend::{CreateMode, Op, Stat, Znode},
    clock::time_until,
    error::Error,
    json::check_depth,
    metrics,
    session::{commit::Unapplied, read::find_first, receipts::Receipted},
};

/// Posts a job when it is awaited. From [`JobBoard::post`](super::JobBoard::post).
#[must_use = "a post does nothing until it is awaited"]
pub struct Post {
    handle: Arc<Handle>,
    uuid: Option<Uuid>,
    posting: Posting,
    /// The JSON value, or why the details are none.
    details: Result<Value, String>,
    delay: Duration,
}

impl Post {
    pub(super) fn new(handle: Arc<Handle>, name: String) -> Self {
        let posting = Posting {
            uuid: Value::Null,
            name: Value::String(name),
            priority: Priority::Normal,
            details: Value::Null,
            book: None,
            not_before: None,
        };
        Post { handle, uuid: None, posting, details: Ok(Value::Null), delay: Duration::ZERO }
    }

    /// The details for the worker: anything that serializes to a JSON object, such as a struct or a map. Without this
    /// call, an empty object.
    pub fn details(mut self, details: impl Serialize) -> Self {
        self.details = serde_json::to_value(details).map_err(|error| error.to_string());
        self
    }

    /// The priority. Without this call, [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.posting.priority = priority;
        self
    }

    /// The TaskFlow logbook that belongs to the job.
    pub fn book(mut self, name: impl Into<String>, uuid: Uuid) -> Self {
        self.posting.book = Some(json!({ "name": name.into(), "uuid": uuid.to_string() }));
        self
    }

    /// The uuid of the job, for instance one that the caller has stored before. Without this call, a new one. The board
    /// does not check whether another job has the same uuid.
    pub fn uuid(mut self, uuid: Uuid) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// The job is not to be claimed before this time. It is converted to a [delay](Post::delay) by the wall clock of this
    /// host.
    pub fn not_before(self, time: SystemTime) -> Self {
        self.delay(time_until(time))
    }

    /// The job is not to be claimed before this time has passed.
    ///
    /// The time is in the posting, as a key that TaskFlow ignores, by the wall clock: those of the hosts should agree.
    /// Workers of this crate honour it; TaskFlow's conductors claim the job at once.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    async fn run(self) -> Result<Job, BoardError> {
        let Post { handle, uuid, mut posting, details, delay } = self;
        let uuid = uuid.unwrap_or_else(|| handle.shared.leases.random().uuid());
        posting.uuid = Value::String(uuid.to_string());
        let refused = |reason| BoardError::Details { name: posting.name().into_owned(), reason };
        let details = match details.map_err(refused)? {
            Value::Null => Map::new().into(),
            details @ Value::Object(_) => details,
            other => return Err(refused(format!("it is {other}"))),
        };
        check_depth(&details).map_err(refused)?;
        posting.not_before = (!delay.is_zero()).then(|| handle.shared.clock.unix_ms_in(delay));
        posting.details = details;
        let data = posting.encode();
        let limit = max_posting_bytes(handle.shared.leases.access().max_request_bytes());
        if data.len() > limit {
            let reason = PostingError::TooLarge { bytes: data.len(), limit };
            return Err(BoardError::TooLarge { name: posting.name().into_owned(), reason });
        }
        handle.shared.run("post", create(handle.clone(), uuid, posting, data)).await?
    }
}

impl IntoFuture for Post {
    type Output = Result<Job, BoardError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post")
            .field("board", &self.handle)
            .field("uuid", &self.uuid)
            .field("posting", &self.posting)
            .finish()
    }
}

/// Creates the job.
async fn create(handle: Arc<Handle>, uuid: Uuid, posting: Posting, data: Vec<u8>) -> Result<Job, BoardError> {
    let shared = &handle.shared;
    let live = shared.live().await?;
    let create = Op::create(&shared.layout.job, data.clone(), CreateMode::PersistentSequential);
    let Receipted { applied, stat } = match shared.receipts.commit(&live, vec![create]).await {
        Ok(receipted) => receipted,
        Err(Unapplied::Refused { error, path, .. }) => return Err(Error::from_backend(error, &path).into()),
        Err(Unapplied::Failed(error)) => return Err(Error::from_backend(error, &shared.layout.board).into()),
        Err(Unapplied::Overtaken | Unapplied::Unknown(_)) => return Err(unknown(&posting)),
    };
    let known = match applied.created(0) {
        Some(path) => {
            // The receipt was written in the same transaction as the job, so its stat has the job's times.
            let stat = Stat {
                czxid: stat.mzxid,
                mzxid: stat.mzxid,
                created_ms: stat.modified_ms,
                modified_ms: stat.modified_ms,
                ..Stat::default()
            };
            Known::new(&path, posting, data, stat).expect("the name of a lock has the same characters")
        }
        None => match find(shared, stat.mzxid).await {
            Ok(Some(known)) => known,
            Ok(None) => return Err(BoardError::PostedAndGone { uuid }),
            // The job was posted. After any other error the caller would post it again.
            Err(_) => return Err(unknown(&posting)),
        },
    };
    let known = Arc::new(known);
    debug!(job = %known.path, %uuid, "posted");
    metrics::BOARD_POSTED.add(&[shared.layout.board.as_str()]);
    shared.mark(Mark::Posted(known.clone()));
    Ok(Job::new(known, false, handle))
}

fn unknown(posting: &Posting) -> BoardError {
    BoardError::OutcomeUnknown { job: posting.name().into_owned(), uuid: posting.parsed_uuid() }
}

/// Reads the job that was created by this transaction, if it is still on the board; in any session.
async fn find(shared: &Arc<Shared>, czxid: i64) -> Result<Option<Known>, BoardError> {
    let job = shared.read(&shared.layout.board, {
        let shared = shared.clone();
        move |live| {
            let shared = shared.clone();
            Box::pin(async move {
                let board = &shared.layout.board;
                live.session.sync(board).await?;
                let (names, _) = live.session.children(board).await?;
                let jobs = names.iter().filter(|name| Child::of(name) == Child::Job);
                let mut paths: Vec<_> = jobs.filter_map(|name| board.join(name).ok()).collect();
                // Most likely among the last.
                paths.sort_unstable_by(|a, b| b.cmp(a));
                let is_ours = |(_, stat): &Znode| stat.czxid == czxid;
                let found = find_first(&*live.session, &paths, &shared.sizes, is_ours).await?;
                let limit = live.session.max_request_bytes();
                let known = found.and_then(|(at, znode)| Known::read(&paths[at], Ok(Some(znode)), limit));
                Ok(known.and_then(Result::ok))
            })
        }
    });
    job.await
}
