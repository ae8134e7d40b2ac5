//! `/healthz`, `/status` and `/metrics` of a coordinator, to mount into the HTTP server of the service. Needs the cargo
//! feature `http`.
//!
//! [`StatusService`] is a tower service. There is no server here: mount it into one, for instance axum.
//!
//! ```
//! # use apportion::{Config, PartitionCoordinator, backend, http::StatusService};
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let config = Config::for_backend(backend::Memory::new());
//! let coordinator = PartitionCoordinator::connect(config).await?;
//! let status = StatusService::new(&coordinator);
//! let app = axum::Router::new()
//!     .route_service("/healthz", status.clone())
//!     .route_service("/status", status);
//! # let _: axum::Router = app;
//! # Ok::<(), apportion::Error>(()) }).unwrap();
//! ```
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 if the member may act; else 503, with what keeps it from acting, a line for each |
//! | `/status` | the [`Status`](crate::status::Status) as JSON; as a page to a client that prefers `text/html`, as browsers do |
//! | `/metrics` | what [`StatusService::metrics`] renders; 404 without it |
//!
//! Only the last part of a path counts, so it can be mounted below any other. The answers name members, servers and paths:
//! give them to operators, not to the public.

mod accept;
mod page;

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower_service::Service;

use self::{accept::prefers_html, page::page};
use crate::coordinator::{Observed, PartitionCoordinator};

/// Renders metrics as text.
type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Answers `/healthz`, `/status` and `/metrics`. Cheap to clone. See the [module documentation](self).
///
/// It does not keep the coordinator: if the last handle is dropped, `/healthz` says that it is closed.
#[derive(Clone)]
pub struct StatusService {
    observed: Observed,
    render: Option<Render>,
}

/// The body of an answer, of one piece.
#[derive(Debug, Default)]
pub struct Body(Option<Bytes>);

impl StatusService {
    /// The answers about `coordinator`.
    pub fn new(coordinator: &PartitionCoordinator) -> Self {
        StatusService { observed: coordinator.observed(), render: None }
    }

    /// Answers `/metrics` with the text that `render` returns, in the format of Prometheus. Before each call, the gauges of
    /// this coordinator are set: see [`PartitionCoordinator::record_metrics`].
    ///
    /// With `metrics-exporter-prometheus`, `render` is `move || handle.render()`, where the handle comes from
    /// `PrometheusBuilder::install_recorder`. Call its `run_upkeep` every few seconds as well: the exporter keeps each sample
    /// of a histogram until then or until it is rendered. Set buckets, if histograms of several processes are to be added.
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.render = Some(Arc::new(render));
        self
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let path = request.uri().path().trim_end_matches('/');
        let mut answer = match path.rsplit('/').next() {
            Some("healthz") => self.health(),
            Some("status") => self.status(request),
            Some("metrics") => match &self.render {
                Some(render) => {
                    self.observed.record_metrics();
                    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", render())
                }
                None => text(StatusCode::NOT_FOUND, "no renderer of metrics is set\n".into()),
            },
            _ => text(StatusCode::NOT_FOUND, "there are /healthz, /status and /metrics\n".into()),
        };
        if request.method() == Method::HEAD {
            // The length of the body that GET has: a server would send that of the empty one.
            let length = answer.body().len().into();
            answer.headers_mut().insert(CONTENT_LENGTH, length);
            *answer.body_mut() = Body::default();
        }
        answer
    }

    fn health(&self) -> Response<Body> {
        let closed = || vec!["the coordinator is closed".to_owned()];
        let obstacles = self.observed.obstacles().unwrap_or_else(closed);
        match obstacles.is_empty() {
            true => text(StatusCode::OK, "ok\n".into()),
            false => text(StatusCode::SERVICE_UNAVAILABLE, obstacles.join("\n") + "\n"),
        }
    }

    fn status<B>(&self, request: &Request<B>) -> Response<Body> {
        let Some(status) = self.observed.status() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the coordinator is closed\n".into());
        };
        let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut answer = if prefers_html(accept) {
            respond(StatusCode::OK, "text/html; charset=utf-8", page(&status))
        } else {
            let json = serde_json::to_string_pretty(&status).expect("it has text keys and finite numbers");
            respond(StatusCode::OK, "application/json", json + "\n")
        };
        answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
        answer
    }
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut answer = Response::new(Body(Some(body.into()).filter(|body: &Bytes| !body.is_empty())));
    *answer.status_mut() = status;
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Nothing is loaded, and no script runs, whatever the ids of members are.
        (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

impl<B> Service<Request<B>> for StatusService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(&request)))
    }
}

impl Body {
    /// In bytes.
    fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, |bytes| bytes.len() as u64)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

impl fmt::Debug for StatusService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusService").field("has_metrics", &self.render.is_some()).finish_non_exhaustive()
    }
}
