//! One member of a mixed fleet: its process, its way to the server, and what it acts on.

use std::time::Duration;

use apportion::{Config, PartitionCoordinator};
use serde_json::{Value, json};

use crate::{
    evaluator::{Order, now},
    holdings::Holdings,
    oracle::{Seen, Side},
    support::{
        MS, Mode, Proxy, SECOND, Server,
        driven::Driven,
        eventually, expiry,
        python::{Versions, python_of},
        until,
    },
};

/// How a member is started.
#[derive(Clone, Debug)]
pub(crate) enum Start {
    /// A program in Python, below tests, with its arguments after the URL.
    Python { versions: Versions, script: &'static str, arguments: Vec<String>, weight: u32 },
    /// An evaluator of this crate.
    Rust(Order),
}

/// A member, in the group or not.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    start: Start,
    process: Driven,
    proxy: Proxy,
    pub(crate) holdings: Holdings,
    /// Whether it should be in the group.
    pub(crate) is_in: bool,
    /// The versions of the Python packages that it runs.
    pub(crate) versions: Value,
    /// What it said that is not about what it acts on.
    other: Vec<Value>,
}

impl Member {
    /// Starts the process of a member. `url` gets the address of its way to the server.
    pub(crate) async fn new(server: &Server, id: &str, url: impl Fn(&str) -> String, start: Start) -> Member {
        let proxy = Proxy::start(server.port()).await;
        let url = url(&proxy.connect_string());
        let start = match start {
            Start::Python { versions, script, mut arguments, weight } => {
                arguments.insert(0, url);
                Start::Python { versions, script, arguments, weight }
            }
            Start::Rust(order) => Start::Rust(Order { url, ..order }),
        };
        let process = start.process();
        let (holdings, versions, other) = (Holdings::default(), Value::Null, Vec::new());
        Member { id: id.to_owned(), start, process, proxy, holdings, is_in: false, versions, other }
    }

    pub(crate) fn side(&self) -> Side {
        match self.start {
            Start::Python { .. } => Side::Python,
            Start::Rust(_) => Side::Rust,
        }
    }

    /// Its weight where weights count.
    pub(crate) fn weight(&self) -> u32 {
        match &self.start {
            Start::Python { weight, .. } => *weight,
            Start::Rust(order) => order.weight,
        }
    }

    pub(crate) fn seen(&self) -> Seen<'_> {
        Seen { id: &self.id, side: self.side(), holdings: &self.holdings }
    }

    /// Takes in all that it has said.
    pub(crate) fn hear(&mut self) {
        while let Some(line) = self.process.has_said() {
            self.take(line);
        }
    }

    fn take(&mut self, line: Value) {
        if !self.holdings.hear(&line) {
            self.other.push(line);
        }
    }

    /// Waits until it has said a line that has this. Returns the line.
    async fn says(&mut self, name: &str) -> Value {
        let begin = now();
        loop {
            if let Some(place) = self.other.iter().position(|line| !line[name].is_null()) {
                return self.other.remove(place);
            }
            let line = self.process.says().await;
            self.take(line);
            let errors = &self.holdings.errors;
            assert!(now() - begin < 60_000_000_000, "it does not say {name}: {errors:?}\n{}", self.log());
        }
    }

    /// Waits until its process is ready to join.
    pub(crate) async fn ready(&mut self) {
        let line = self.says("ready").await;
        self.versions = line["versions"].clone();
    }

    /// Has it join the group. It need not be in it when this returns.
    pub(crate) async fn join(&mut self) {
        self.process.tell(json!({"do": "join"})).await;
        self.is_in = true;
    }

    /// Waits until it has said why it has no share, in such words.
    pub(crate) async fn is_refused(&mut self, why: &str) {
        let has_said = || {
            self.hear();
            self.holdings.errors.iter().any(|error| error.contains(why))
        };
        until("it is refused", 20 * SECOND, has_said).await;
    }

    /// Has it leave, and waits until it has.
    pub(crate) async fn leave(&mut self) {
        self.process.tell(json!({"do": "leave"})).await;
        let left = self.says("left").await;
        self.holdings.over(left["left"].as_u64().expect("a time"));
        self.is_in = false;
    }

    /// How the membership is, as a member of this crate sees it.
    pub(crate) async fn status(&mut self) -> Value {
        self.process.tell(json!({"do": "status"})).await;
        self.says("status").await["status"].take()
    }

    /// Kills its process. The next one under its id has started, and is not in the group.
    pub(crate) async fn kill(&mut self) {
        let next = self.start.process();
        let killed = std::mem::replace(&mut self.process, next);
        let at = now();
        for line in killed.kill().await {
            self.take(line);
        }
        self.other.clear();
        self.holdings.over(at);
        self.is_in = false;
    }

    /// Ends its session at the server, at once.
    pub(crate) async fn expire(&self, server: &Server) {
        eventually("its session is closed", 10 * SECOND, || async {
            let session = self.proxy.granted()?;
            expiry::close(server.port(), session).await.is_ok_and(|was_there| was_there).then_some(())
        })
        .await;
    }

    /// Cuts its way to the server without a reset, or restores it.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.proxy.set(if is_cut { Mode::BlackHole } else { Mode::Pass });
    }

    /// Stops its process.
    pub(crate) fn pause(&mut self) {
        self.process.pause();
        self.holdings.stopped(now());
    }

    /// Lets its process go on.
    pub(crate) fn resume(&mut self) {
        self.holdings.resumed(now());
        self.process.resume();
    }

    /// What it has logged, for the message of a panic.
    pub(crate) fn log(&self) -> String {
        let errors = self.process.errors();
        let from = errors.lines().count().saturating_sub(15);
        errors.lines().skip(from).collect::<Vec<_>>().join("\n")
    }
}

impl Start {
    fn process(&self) -> Driven {
        match self {
            Start::Python { versions, script, arguments, .. } => {
                python_of(*versions, script, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
            }
            Start::Rust(order) => order.start(),
        }
    }
}

/// The URL of a group's members, with a short session timeout.
pub(crate) fn url(servers: &str) -> String {
    format!("zookeeper://{servers}?timeout={}", SESSION_TIMEOUT.as_secs())
}

/// The same for members of this crate, with the options that only they have.
pub(crate) fn rust_url(servers: &str) -> String {
    format!(
        "{}&server_tick={}ms&retry_backoff=100ms&max_retry_interval=500ms",
        url(servers),
        TICK.as_millis()
    )
}

/// A coordinator of the test itself: nothing happens to it, so its session lasts longer.
pub(crate) async fn coordinator(server: &Server, credentials: &str, id: &str) -> PartitionCoordinator {
    let url = format!(
        "zookeeper://{credentials}{}?timeout=20&server_tick={}ms",
        server.connect_string(),
        TICK.as_millis()
    );
    let config = Config::from_url(&url).expect("it is a URL").member_id(id);
    PartitionCoordinator::connect(config).await.expect("the server is there")
}

pub(crate) const SESSION_TIMEOUT: Duration = SECOND.saturating_mul(4);
/// The tick of the harness's servers.
pub(crate) const TICK: Duration = MS.saturating_mul(100);
