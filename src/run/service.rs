//! [`service`]: a `tower::Service` as a handler.

use std::{future::poll_fn, sync::Arc};

use tokio::sync::Mutex;
use tower_service::Service;

use crate::future::BoxFuture;

/// A [`tower::Service`](Service) as a handler of a runner, so that its layers apply: timeouts, rate limits, tracing. With
/// the feature `tower`.
///
/// ```
/// # use std::time::Duration;
/// # use apportion::{Config, PartitionCoordinator, backend, run::{JobTask, service}};
/// # use tower::ServiceBuilder;
/// # async fn resize(_: JobTask) -> Result<(), std::io::Error> { Ok(()) }
/// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
/// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
/// # let board = coordinator.job_board("/taskflow/jobs").await?;
/// # board.post("resize-volume").await?;
/// # let shutdown = tokio::time::sleep(Duration::from_secs(1));
/// let resize = ServiceBuilder::new()
///     .rate_limit(100, Duration::from_secs(1))
///     .timeout(Duration::from_secs(30))
///     .service_fn(resize);
/// let counts = board.run().on("resize-volume", service(resize)).until(shutdown).await?;
/// # assert_eq!(counts.finished, 1);
/// # Ok::<(), apportion::board::BoardError>(()) }).unwrap();
/// ```
///
/// All calls go to this one service, each when it is ready. So what a layer counts, it counts for all handlers of the
/// runner. Work that waits for the service to be ready has its lease already.
pub fn service<R, S>(
    service: S,
) -> impl Fn(R) -> BoxFuture<'static, Result<S::Response, S::Error>> + Send + Sync + 'static
where
    R: Send + 'static,
    S: Service<R, Response: Send, Error: Send, Future: Send> + Send + 'static,
{
    let service = Arc::new(Mutex::new(service));
    move |request| {
        let service = service.clone();
        Box::pin(async move {
            let response = {
                let mut service = service.lock().await;
                poll_fn(|context| service.poll_ready(context)).await?;
                service.call(request)
            };
            response.await
        })
    }
}
