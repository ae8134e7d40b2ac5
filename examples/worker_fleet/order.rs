//! The executor's side: has a file hashed, also if workers fail.

use apportion::worker::{Executor, Request, RequestError, RequestState};

use super::{
    files::File,
    work::{HASH, Hashed},
};
use crate::support::Failure;

/// How often a request is sent before it is given up.
const TRIES: u32 = 4;

/// What happens on the way.
#[derive(Debug)]
pub enum News {
    /// A worker has started on it.
    Started { worker: String },
    /// So much of it is done.
    Progress(f64),
    /// The request ended without an answer of its worker, and is sent again.
    SentAgain(RequestError),
}

/// Has `file` hashed.
///
/// A request is run at most once, and one that is lost ends as an error: only the caller knows whether it may be run
/// twice. To hash a file twice does no harm, so it is sent again without a check of
/// [`may_have_run`](RequestError::may_have_run).
pub async fn hash(executor: &Executor, file: &File, report: impl Fn(News)) -> Result<Hashed, Failure> {
    for attempt in 1.. {
        let request = executor.submit(Request::execute(HASH).argument("path", &file.path));
        let mut progress = request.progress();
        let state = request.wait_for_state(|state| state == RequestState::Running).await;
        if let (RequestState::Running, Some(worker)) = (state, request.topic()) {
            report(News::Started { worker });
        }
        let follow = async {
            while let Some(event) = progress.next().await {
                if let Some(done) = event.as_progress() {
                    report(News::Progress(done));
                }
            }
        };
        match tokio::join!(request, follow).0 {
            Ok(outcome) => return Ok(outcome.get()?),
            Err(error) if error.is_transient() && attempt < TRIES => report(News::SentAgain(error)),
            Err(error) => return Err(error.into()),
        }
    }
    unreachable!("the last try returns")
}
