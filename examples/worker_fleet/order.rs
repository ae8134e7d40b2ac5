//! The executor's side: has a file hashed, whatever becomes of the workers.

use apportion::worker::{Executor, RequestError, message::Request, message::Response};

use super::{
    files::File,
    work::{HASH, Hashed, STARTED},
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
/// A request is run at most once, and one that is lost ends as an error: only who sent it knows whether it may be
/// run twice. To hash a file twice does no harm, so it is sent again.
pub async fn hash(executor: &Executor, file: &File, tell: impl Fn(News)) -> Result<Hashed, Failure> {
    for attempt in 1.. {
        let request = executor.submit(Request::execute(HASH).argument("path", file.path.as_str()));
        let mut progress = request.progress();
        let follow = async {
            while let Some(event) = progress.next().await {
                if let Some(news) = understand(&event) {
                    tell(news);
                }
            }
        };
        match tokio::join!(request, follow).0 {
            Ok(result) => return Ok(serde_json::from_value(result)?),
            Err(error @ (RequestError::WorkerVanished { .. } | RequestError::Expired { .. }))
                if attempt < TRIES =>
            {
                tell(News::SentAgain(error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    unreachable!("the last try returns")
}

fn understand(event: &Response) -> Option<News> {
    if let Some(done) = event.as_progress() {
        return Some(News::Progress(done));
    }
    match event {
        Response::Event { event_type, details } if event_type == STARTED => {
            Some(News::Started { worker: details.get("worker")?.as_str()?.to_owned() })
        }
        _ => None,
    }
}
