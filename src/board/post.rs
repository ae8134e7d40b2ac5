//! [`Post`]: how a job gets on a board exactly once.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, time::sleep};
use tracing::debug;
use uuid::Uuid;

use super::{
    BoardError, Job, JobBoard, Shared,
    cache::{Known, Mark},
    driver::understand,
    layout::{Child, lock_of},
    posting::{MAX_POSTING_BYTES, Posting, PostingError, Priority},
};
use crate::{
    backend::{self, CommitError, CreateMode, Done, Op, Stat, Znode, path::ZnodePath},
    error::Error,
    session::{
        Live,
        requests::{Denied, get_each, make_way},
    },
};

/// A job on its way to a board; await it. From [`JobBoard::post`].
#[must_use = "a post does nothing until it is awaited"]
pub struct Post {
    board: JobBoard,
    uuid: Option<Uuid>,
    posting: Posting,
}

impl Post {
    pub(super) fn new(board: JobBoard, name: String) -> Self {
        let posting = Posting {
            uuid: Value::Null,
            name: Value::String(name),
            priority: Priority::Normal,
            details: Value::Null,
            book: None,
        };
        Post { board, uuid: None, posting }
    }

    /// What the worker has to know: a JSON object. Without it, an empty one.
    pub fn details(mut self, details: impl Into<Value>) -> Self {
        self.posting.details = details.into();
        self
    }

    /// How urgent it is; [`Priority::Normal`] without it.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.posting.priority = priority;
        self
    }

    /// The TaskFlow logbook that belongs to it.
    pub fn book(mut self, name: impl Into<String>, uuid: Uuid) -> Self {
        self.posting.book = Some(json!({ "name": name.into(), "uuid": uuid.to_string() }));
        self
    }

    /// The uuid of the job, for instance one that the caller has written down before; without it, a new one. The
    /// board does not check that there is no other job of that uuid.
    pub fn uuid(mut self, uuid: Uuid) -> Self {
        self.uuid = Some(uuid);
        self
    }

    async fn run(self) -> Result<Job, BoardError> {
        let Post { board, uuid, mut posting } = self;
        let uuid = uuid.unwrap_or_else(Uuid::new_v4);
        posting.uuid = Value::String(uuid.to_string());
        match &posting.details {
            Value::Object(_) => {}
            Value::Null => posting.details = Map::new().into(),
            _ => return Err(BoardError::Details { name: posting.name().into_owned() }),
        }
        let data = posting.encode();
        if data.len() > MAX_POSTING_BYTES {
            let reason = PostingError::TooLarge { bytes: data.len() };
            return Err(BoardError::TooLarge { name: posting.name().into_owned(), reason });
        }
        let task = board.clone();
        board.shared().run("post", async move { task.create(uuid, posting, data).await }).await?
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
            .field("board", &self.board)
            .field("uuid", &self.uuid)
            .field("posting", &self.posting)
            .finish()
    }
}

impl JobBoard {
    /// Creates the job beside a marker that shows, for as long as the session lives, that this was done and when.
    async fn create(self, uuid: Uuid, posting: Posting, data: Vec<u8>) -> Result<Job, BoardError> {
        let shared = self.shared();
        let live = shared.live().await?;
        let marker = shared.layout.posting.join(&Uuid::new_v4().to_string()).expect("a uuid is a name");
        let ops = vec![
            Op::create(&shared.layout.job, data.clone(), CreateMode::PersistentSequential),
            Op::create(&marker, [], CreateMode::Ephemeral),
            Op::set(&marker, [], Some(0)),
        ];
        let (path, marked) = loop {
            let error = match live.session.commit(ops.clone()).await {
                Ok(done) => match (done.first(), done.last()) {
                    (Some(Done::Created(path)), Some(Done::Set(stat))) => break (Some(path.clone()), *stat),
                    _ => backend::Error::Other(format!("a post ended with {done:?}")),
                },
                Err(CommitError { index: Some(index), error }) => {
                    if make_way(&*live.session, &ops[index], &error).await {
                        continue;
                    }
                    return Err(Error::from_backend(error, &shared.layout.board).into());
                }
                Err(CommitError { index: None, error }) => error,
            };
            if !error.is_unknown() {
                return Err(Error::from_backend(error, &shared.layout.board).into());
            }
            match live.read_back(&marker).await {
                Ok(Some((_, stat))) => break (None, stat),
                Ok(None) => debug!(%uuid, "the reply was lost, and the request as well"),
                Err(_) => return Err(BoardError::Unknown { uuid }),
            }
        };
        shared.clean(marker);
        let Some(path) = path else {
            return match shared.find(marked.czxid).await {
                Ok(Some(known)) => Ok(self.posted(known)),
                Ok(None) => Err(BoardError::PostedAndGone { uuid }),
                // It was posted: whoever took this for a refusal would post it again.
                Err(_) => Err(BoardError::Unknown { uuid }),
            };
        };
        let lock = lock_of(&path).expect("the name of a lock is made of the same letters");
        // Made in one transaction, at one moment.
        let stat = Stat {
            czxid: marked.czxid,
            mzxid: marked.czxid,
            created_ms: marked.created_ms,
            modified_ms: marked.created_ms,
            ..Stat::default()
        };
        Ok(self.posted(Known { path, lock, posting: Arc::new(posting), data: Arc::new(data), stat }))
    }

    fn posted(self, known: Known) -> Job {
        let known = Arc::new(known);
        debug!(job = %known.path, "posted");
        self.shared().mark(Mark::Posted(known.clone()));
        Job { known, is_claimed: false, board: self }
    }
}

impl Shared {
    /// The job that was created by this transaction, if it is still there; in whatever session.
    async fn find(&self, czxid: i64) -> Result<Option<Known>, BoardError> {
        let board = self.layout.board.clone();
        self.read(&self.layout.board, move |live| {
            let board = board.clone();
            Box::pin(async move {
                live.session.sync(&board).await?;
                let (names, _) = live.session.children(&board).await?;
                let jobs = names.iter().filter(|name| Child::of(name) == Child::Job);
                let paths: Vec<_> = jobs.filter_map(|name| board.join(name).ok()).collect();
                let found = get_each(&*live.session, &paths).await?;
                let is_ours = |found: &Result<Option<Znode>, Denied>| {
                    matches!(found, Ok(Some((_, stat))) if stat.czxid == czxid)
                };
                let ours = paths.iter().zip(found).find(|(_, found)| is_ours(found));
                Ok(ours.and_then(|(path, found)| understand(path, found)?.ok()))
            })
        })
        .await
    }
}

/// Most markers that are deleted in one transaction.
const AT_ONCE: usize = 1000;
/// How long a marker waits for others.
const LINGER: Duration = Duration::from_millis(100);

/// Deletes markers, many at once. Those it does not get to end with the session.
pub(super) async fn clean_up(shared: Arc<Shared>, mut markers: mpsc::UnboundedReceiver<ZnodePath>) {
    let access = shared.leases.access().clone();
    let cancelled = shared.leases.tasks().cancelled();
    // Only posters keep it going: the board may be closed, and its last markers have to go all the same.
    drop(shared);
    let mut batch = Vec::new();
    let clean = async {
        while let Some(first) = markers.recv().await {
            // Many posts one after another make one request of it.
            sleep(LINGER).await;
            batch.push(first);
            while let Ok(next) = markers.try_recv() {
                batch.push(next);
                if batch.len() == AT_ONCE {
                    break;
                }
            }
            // Without a session, they have gone with the last one.
            if let Ok(live) = access.live().await {
                delete(&live, &mut batch).await;
            }
            batch.clear();
        }
    };
    cancelled.run_until_cancelled(clean).await;
}

/// Deletes markers together. Those that are gone are as good as deleted.
async fn delete(live: &Live, batch: &mut Vec<ZnodePath>) {
    while let Some(first) = batch.first().cloned() {
        let ops = batch.iter().map(|marker| Op::delete(marker, None)).collect();
        match live.session.commit(ops).await {
            Ok(_) => return,
            Err(CommitError { index: Some(index), .. }) => drop(batch.remove(index)),
            Err(CommitError { index: None, error }) => {
                debug!(%error, "whether markers were deleted is not known");
                if !matches!(live.read_back(&first).await, Ok(Some(_))) {
                    return;
                }
            }
        }
    }
}
