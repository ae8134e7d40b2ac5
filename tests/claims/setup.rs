//! [`Setup`]: an ensemble in memory with a victim, to whose calls faults happen, and another process without faults,
//! which does what is left.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use apportion::{
    PartitionCoordinator,
    backend::{Connector, Memory, Session, memory::LostReply, path::ZnodePath},
    board::{JobBoard, OpenBoard},
    queue::{Delivery, OpenQueue, WorkQueue},
    testing::Faults,
};

use crate::support::{
    EITHER, SECOND, eventually,
    fleet::{Store, Via},
    soon, until,
};
use crate::{
    ledger::Ledger,
    session_faults::{Fault, SessionFaults},
};

/// A board or queue without pauses: what is given back can be taken again at once.
pub(crate) trait AtOnce {
    fn at_once(self) -> Self;
}

impl AtOnce for OpenBoard {
    fn at_once(self) -> Self {
        self.pauses(Duration::ZERO, Duration::ZERO)
    }
}

impl AtOnce for OpenQueue {
    fn at_once(self) -> Self {
        self.pauses(Duration::ZERO, Duration::ZERO)
    }
}

/// How many writes are made, and how many calls at which each fault can happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) writes: u64,
    calls: [u64; Fault::ALL.len()],
}

/// All troubles for a script with these numbers of calls.
pub(crate) fn troubles(counts: Counts) -> Vec<Trouble> {
    let Counts { writes, calls } = counts;
    let mut troubles = Vec::new();
    for n in 1..=writes {
        for lost in EITHER {
            troubles.push(Trouble::Reply(n, lost));
            troubles.extend(EITHER.map(|again| Trouble::Replies(n, lost, again)));
            for (fault, calls) in
                Fault::ALL.into_iter().zip(calls).filter(|(fault, _)| fault.is_thorough(lost))
            {
                troubles.extend((1..=calls + 3).map(|m| Trouble::Both((n, lost), (m, fault))));
            }
        }
    }
    for (fault, calls) in Fault::ALL.into_iter().zip(calls) {
        troubles.extend((1..=calls).map(|n| Trouble::Session(n, fault)));
    }
    troubles
}

/// Longer than any expected event takes. Time is paused.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// One fault, or two together.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trouble {
    Nothing,
    /// The reply to the n-th write is lost.
    Reply(u64, LostReply),
    /// Those to the n-th and the next one are.
    Replies(u64, LostReply, LostReply),
    /// A fault at the n-th call at which it can happen.
    Session(u64, Fault),
    /// A lost reply, and something else before or after it.
    Both((u64, LostReply), (u64, Fault)),
}

pub(crate) struct Setup {
    pub(crate) store: Store,
    pub(crate) ledger: Ledger,
    pub(crate) faults: Faults,
    pub(crate) session_faults: Arc<SessionFaults>,
    /// The process with troubles.
    pub(crate) victim: PartitionCoordinator,
    /// The process without troubles.
    pub(crate) other: PartitionCoordinator,
    pub(crate) observer: Arc<dyn Session>,
}

impl Setup {
    pub(crate) async fn new() -> Setup {
        let store = Store::memory();
        let session_faults = SessionFaults::new(store.ensemble());
        Setup::with(store, session_faults).await
    }

    /// With a victim whose calls take several turns of the runtime.
    pub(crate) async fn slow() -> Setup {
        let store = Store::memory();
        let session_faults = SessionFaults::slow(store.ensemble());
        Setup::with(store, session_faults).await
    }

    async fn with(store: Store, session_faults: SessionFaults) -> Setup {
        let session_faults = Arc::new(session_faults);
        let faults = Faults::new(Arc::new(session_faults.connector()));
        let connect = |connector: Arc<dyn Connector>, id: &str| {
            PartitionCoordinator::connect(store.config_via(Via(connector), id))
        };
        let victim = connect(Arc::new(faults.clone()), "victim").await.unwrap();
        let other = connect(store.connector(), "other").await.unwrap();
        let observer = store.connector().open(3600 * SECOND).await.unwrap();
        Setup { store, ledger: Ledger::default(), faults, session_faults, victim, other, observer }
    }

    pub(crate) fn memory(&self) -> &Memory {
        self.store.ensemble()
    }

    pub(crate) async fn board_of(&self, whose: &PartitionCoordinator) -> JobBoard {
        whose.job_board("/place/jb").at_once().await.unwrap()
    }

    pub(crate) async fn queue_of(&self, whose: &PartitionCoordinator) -> WorkQueue {
        whose.queue("/queue").max_attempts(None).at_once().await.unwrap()
    }

    /// The calls of the victim so far.
    fn counts(&self) -> Counts {
        let calls = Fault::ALL.map(|fault| self.session_faults.calls(fault));
        Counts { writes: self.faults.calls().writes, calls }
    }

    /// Runs `work` of the victim in trouble, and waits until nothing is held any more. Returns its calls meanwhile.
    pub(crate) async fn in_trouble(&self, trouble: Trouble, work: impl Future<Output = ()>) -> Counts {
        let before = self.counts();
        self.plan(trouble);
        work.await;
        self.heals().await;
        let now = self.counts();
        let calls = std::array::from_fn(|fault| now.calls[fault] - before.calls[fault]);
        Counts { writes: now.writes - before.writes, calls }
    }

    /// Has it happen from here on.
    pub(crate) fn plan(&self, trouble: Trouble) {
        let writes = self.faults.calls().writes;
        match trouble {
            Trouble::Nothing => {}
            Trouble::Reply(n, lost) => self.faults.lose_nth_write(writes + n, lost),
            Trouble::Replies(n, first, second) => {
                self.faults.lose_nth_write(writes + n, first);
                self.faults.lose_nth_write(writes + n + 1, second);
            }
            Trouble::Session(n, fault) => self.session_faults.arm(n, fault),
            Trouble::Both((n, lost), (m, fault)) => {
                self.faults.lose_nth_write(writes + n, lost);
                self.session_faults.arm(m, fault);
            }
        }
    }

    /// The names of the children of a znode; none if it is not there.
    pub(crate) async fn children(&self, path: &str) -> Vec<String> {
        let path = ZnodePath::parse(path).unwrap();
        self.observer.children(&path).await.map(|(names, _)| names).unwrap_or_default()
    }

    /// The ephemeral znodes that have to go while all processes still run.
    pub(crate) async fn held(&self) -> BTreeMap<&'static str, Vec<String>> {
        let mut held = BTreeMap::new();
        for folder in ["/place/jb", "/queue/owned", "/queue/claims"] {
            let mut names = self.children(folder).await;
            names.retain(|name| folder != "/place/jb" || name.ends_with(".lock"));
            if !names.is_empty() {
                held.insert(folder, names);
            }
        }
        held
    }

    /// Waits until no process holds anything.
    pub(crate) async fn heals(&self) {
        let healed = || async { self.held().await.is_empty().then_some(()) };
        let within = tokio::time::timeout(TIMEOUT, eventually("healed", 2 * TIMEOUT, healed)).await;
        assert!(within.is_ok(), "still held after {TIMEOUT:?}: {:?}", self.held().await);
    }

    /// Does all jobs that are left, and checks the ledger.
    pub(crate) async fn finish_board(&self) {
        self.heals().await;
        self.finish_jobs().await;
        self.ledger.judge();
        self.leaves_nothing_behind().await;
    }

    /// Does all entries that are left, collects all results, and checks the ledger.
    pub(crate) async fn finish_queue(&self) {
        self.heals().await;
        self.finish_entries().await;
        self.ledger.judge_results();
        self.leaves_nothing_behind().await;
    }

    pub(crate) async fn finish_jobs(&self) {
        let board = self.board_of(&self.other).await;
        while let Some(claim) = board.try_claim_next().await.unwrap() {
            let (name, token) = (claim.job().name().into_owned(), claim.token().get());
            self.ledger.claimed(&name, token);
            self.ledger.ended(&name, token, &claim.consume().await);
        }
        assert_eq!(self.children("/place/jb").await, Vec::<String>::new());
    }

    pub(crate) async fn finish_entries(&self) {
        let queue = self.queue_of(&self.other).await;
        for letter in queue.dead_letters().await.unwrap() {
            assert!(queue.revive(&letter).await.unwrap());
        }
        while let Some(delivery) = queue.try_take().await.unwrap() {
            let (name, token) = (name_of(delivery.payload()), delivery.lease().token().get());
            self.ledger.claimed(&name, token);
            self.ledger.ended(&name, token, &delivery.done(()).await);
        }
        for result in queue.try_collect(1000).await.unwrap().confirm().await.unwrap() {
            self.ledger.collected(&name_of(result.payload()));
        }
        for folder in ["unowned", "owned", "done", "dead", "claims"] {
            assert_eq!(self.children(&format!("/queue/{folder}")).await, Vec::<String>::new(), "{folder}");
        }
    }

    /// Ends all sessions, and checks that no ephemeral znode is left.
    pub(crate) async fn leaves_nothing_behind(&self) {
        self.other.shutdown().await.unwrap();
        let _ = self.victim.shutdown().await;
        let ours = self.observer.id();
        until("all sessions are over", TIMEOUT, || self.memory().sessions() == [ours]).await;
        for folder in ["/place/.posting", "/place/.entities/conductor", "/queue/receipts", "/queue/claims"] {
            assert_eq!(self.children(folder).await, Vec::<String>::new(), "{folder}");
        }
    }
}

/// The name of a payload in the ledger: its text, up to the first space.
pub(crate) fn name_of(payload: Option<&serde_json::Value>) -> String {
    let text = payload.and_then(serde_json::Value::as_str).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

pub(crate) async fn post(board: &JobBoard, ledger: &Ledger, name: &str) {
    let posted = soon(board.post(name)).await;
    if let Ok(job) = &posted {
        assert_eq!(job.name(), name);
    }
    ledger.put_result(name, &posted);
}

pub(crate) async fn put(queue: &WorkQueue, ledger: &Ledger, name: &str) {
    ledger.put_result(name, &soon(queue.put(name).label(format!("label:{name}"))).await);
}

pub(crate) async fn done(delivery: Delivery, ledger: &Ledger) {
    let (name, token) = (name_of(delivery.payload()), delivery.lease().token().get());
    ledger.ended(&name, token, &soon(delivery.done(())).await);
}

/// Prints the trouble when a test fails.
pub(crate) struct Context<T: std::fmt::Debug>(pub(crate) T);

impl<T: std::fmt::Debug> Drop for Context<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was {:?}", self.0);
        }
    }
}

macro_rules! all_troubles {
    ($($test:ident: $script:ident,)+) => {
        $(#[tokio::test(start_paused = true)]
        async fn $test() {
            Script::$script.with_all_troubles().await;
        })+

        #[test]
        fn no_script_is_forgotten() {
            assert_eq!([$(Script::$script),+], Script::ALL);
        }
    };
}

pub(crate) use all_troubles;
