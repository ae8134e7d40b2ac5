//! [`Bench`]: an ensemble in memory with a victim, to whose calls faults happen, and another process without faults,
//! which does what is left.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use apportion::{
    PartitionCoordinator,
    backend::{Connector, Memory, Session, memory::LostReply, path::ZnodePath},
    board::JobBoard,
    queue::WorkQueue,
    testing::Faults,
};

use super::{
    ledger::Ledger,
    session_faults::{Fault, SessionFaults},
};
use crate::support::{
    eventually,
    fleet::{SECOND, Store, Via},
    until,
};

/// All that can go wrong with something that makes so many writes, and so many calls at which each fault can happen.
pub(crate) fn troubles(writes: u64, calls: &[u64]) -> Vec<Trouble> {
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
        troubles.extend((1..=*calls).map(|n| Trouble::Session(n, fault)));
    }
    troubles
}

/// Longer than anything takes that happens at all. Time is paused.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// One thing that goes wrong.
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

pub(crate) const EITHER: [LostReply; 2] = [LostReply::BeforeApplying, LostReply::AfterApplying];

pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) ledger: Ledger,
    pub(crate) faults: Faults,
    pub(crate) session_faults: Arc<SessionFaults>,
    /// The one with troubles.
    pub(crate) victim: PartitionCoordinator,
    /// The one without.
    pub(crate) other: PartitionCoordinator,
    pub(crate) looker: Arc<dyn Session>,
}

impl Bench {
    pub(crate) async fn new() -> Bench {
        let store = Store::memory();
        let session_faults = SessionFaults::new(store.ensemble());
        Bench::with(store, session_faults).await
    }

    /// With a victim whose calls take several turns of the runtime.
    pub(crate) async fn slow() -> Bench {
        let store = Store::memory();
        let session_faults = SessionFaults::slow(store.ensemble());
        Bench::with(store, session_faults).await
    }

    async fn with(store: Store, session_faults: SessionFaults) -> Bench {
        let session_faults = Arc::new(session_faults);
        let faults = Faults::new(Arc::new(session_faults.connector()));
        let connect = |connector: Arc<dyn Connector>, id: &str| {
            PartitionCoordinator::connect(store.config_via(Via(connector), id))
        };
        let victim = connect(Arc::new(faults.clone()), "victim").await.unwrap();
        let other = connect(store.connector(), "other").await.unwrap();
        let looker = store.connector().open(3600 * SECOND).await.unwrap();
        Bench { store, ledger: Ledger::default(), faults, session_faults, victim, other, looker }
    }

    pub(crate) fn memory(&self) -> &Memory {
        self.store.ensemble()
    }

    pub(crate) async fn board_of(&self, whose: &PartitionCoordinator) -> JobBoard {
        whose.job_board("/place/jb").await.unwrap()
    }

    pub(crate) async fn queue_of(&self, whose: &PartitionCoordinator) -> WorkQueue {
        whose.queue("/queue").max_attempts(None).await.unwrap()
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
        self.looker.children(&path).await.map(|(names, _)| names).unwrap_or_default()
    }

    /// How many there are of what has to go while everybody is still there.
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

    /// Waits until nobody holds anything.
    pub(crate) async fn heals(&self) {
        let healed = || async { self.held().await.is_empty().then_some(()) };
        let within = tokio::time::timeout(PATIENCE, eventually("healed", 2 * PATIENCE, healed)).await;
        assert!(within.is_ok(), "still held after {PATIENCE:?}: {:?}", self.held().await);
    }

    /// Does all jobs that are left, and looks whether the books are right.
    pub(crate) async fn settle_board(&self) {
        self.heals().await;
        self.finish_jobs().await;
        self.ledger.judge();
        self.leaves_nothing_behind().await;
    }

    /// Does all entries that are left, collects all results, and looks whether the books are right.
    pub(crate) async fn settle_queue(&self) {
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

    /// Ends all sessions, and looks whether anything ephemeral has outlived them.
    pub(crate) async fn leaves_nothing_behind(&self) {
        self.other.shutdown().await.unwrap();
        let _ = self.victim.shutdown().await;
        let ours = self.looker.id();
        until("all sessions are over", PATIENCE, || self.memory().sessions() == [ours]).await;
        for folder in ["/place/.posting", "/place/.entities/conductor", "/queue/receipts", "/queue/claims"] {
            assert_eq!(self.children(folder).await, Vec::<String>::new(), "{folder}");
        }
    }
}

/// What a payload is called in the ledger: its text, up to the first space.
pub(crate) fn name_of(payload: Option<&serde_json::Value>) -> String {
    let text = payload.and_then(serde_json::Value::as_str).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

/// Waits until `work` has come to its end.
pub(crate) async fn soon<F: IntoFuture>(work: F) -> F::Output {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}
