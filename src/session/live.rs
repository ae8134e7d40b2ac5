//! [`Live`]: one live session.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    read::Denied,
    shown,
    timing::Timing,
    validity::{SessionValidity, Validity},
};
use crate::{
    backend::{self, CommitError, Loss, Op, Session, SessionId, SessionState, Znode, path::ZnodePath},
    clock::Moment,
    error::Error,
    random::Random,
    watch,
};

/// The state of the keeper.
#[derive(Debug, Clone)]
pub(crate) enum Status {
    /// No session at the moment; `error` says why the last attempt failed.
    Opening { error: Option<Error> },
    /// There is a session.
    Live(Arc<Live>),
    /// The keeper has ended.
    Closed,
}

/// One live session, and the znodes that its heartbeats check.
pub(crate) struct Live {
    pub(crate) session: Arc<dyn Session>,
    pub(crate) timing: Timing,
    pub(crate) random: Random,
    validity: SessionValidity,
    checked: Mutex<Vec<Checked>>,
    /// The leases that end with this session, whatever their own deadlines are.
    leases: Mutex<Vec<SessionValidity>>,
    /// Whether the connection is up, as the keeper has noticed it.
    connection: watch::Sender<bool>,
    reported: Mutex<Moment>,
    relayed: Mutex<Option<Relayed>>,
}

/// A transaction of another task that shows, as a heartbeat does, that the session lived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Relayed {
    /// When it was sent.
    pub(super) sent: Moment,
    /// When the next one will be.
    pub(super) next: Moment,
}

/// A znode that each heartbeat checks.
struct Checked {
    path: ZnodePath,
    version: i32,
    validity: Validity,
}

impl Live {
    pub(super) fn new(
        session: Arc<dyn Session>,
        timing: Timing,
        validity: SessionValidity,
        random: Random,
        reported: Moment,
    ) -> Self {
        let connection = watch::Sender::new(true);
        let (checked, reported) = (Mutex::default(), Mutex::new(reported));
        let (leases, relayed) = (Mutex::default(), Mutex::default());
        Live { session, timing, random, validity, checked, leases, connection, reported, relayed }
    }

    /// A moment of which the leader certainly knows that the session lived: it has begun to measure the timeout then, or
    /// later. The session was asked for at that moment, or a heartbeat was sent.
    pub(crate) fn reported(&self) -> Moment {
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a transaction that was sent at `sent` and is confirmed, so that the keeper need not send a heartbeat of its
    /// own. The next such transaction is sent at `next`.
    pub(crate) fn relay(&self, sent: Moment, next: Moment) {
        *self.relayed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Relayed { sent, next });
    }

    /// The newest transaction that [`Live::relay`] has noted, if no znode has to be checked by the keeper.
    pub(super) fn take_relayed(&self) -> Option<Relayed> {
        let relayed = self.relayed.lock().unwrap_or_else(PoisonError::into_inner).take();
        relayed.filter(|_| self.lock().iter().all(|one| one.validity.has_ended()))
    }

    pub(super) fn note_reported(&self, moment: Moment) {
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    /// The validity of the znode at `path`, which this session owns: each heartbeat checks it from now on.
    pub(crate) fn validity_of(&self, path: &ZnodePath, version: i32) -> Validity {
        let validity = Validity::new(&self.validity);
        self.check_as_well(&validity, path, version);
        validity
    }

    /// From now on each heartbeat also checks the znode at `path` for `validity`. Any session may own that znode.
    pub(crate) fn check_as_well(&self, validity: &Validity, path: &ZnodePath, version: i32) {
        self.lock().push(Checked { path: path.clone(), version, validity: validity.clone() });
    }

    /// A lease with a deadline of its own, which has passed so far. It ends with the session: its holder is a task, which
    /// may run later than the end of the session becomes known to other processes.
    pub(crate) fn lease(&self) -> SessionValidity {
        let lease = self.validity.beside(Moment::default());
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|one| !one.has_ended());
        leases.push(lease.clone());
        // After it can be found there: then either this or the end of the session ends it.
        if self.validity.has_ended() {
            lease.end();
        }
        lease
    }

    /// For how long this process may act if no further heartbeat is confirmed.
    pub(crate) fn remaining(&self) -> Duration {
        Validity::new(&self.validity).remaining()
    }

    pub(crate) fn id(&self) -> SessionId {
        self.session.id()
    }

    /// Whether the connection is up at this moment.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(*self.session.state().borrow(), SessionState::Connected { .. })
    }

    /// Whether the connection is up, for tasks that wait for a change. Several tasks may wait for it, so it is a channel
    /// that wakes them in a fixed order. That of the session is for the keeper alone.
    pub(crate) fn connection(&self) -> watch::Receiver<bool> {
        self.connection.subscribe()
    }

    pub(super) fn note_connection(&self, is_up: bool) {
        if *self.connection.borrow() != is_up {
            self.connection.send_replace(is_up);
            let state = if is_up { shown::SessionState::Connected } else { shown::SessionState::Suspended };
            state.measure();
        }
    }

    /// Waits until the session has ended.
    pub(crate) async fn ended(&self) {
        self.validity.ended().await;
    }

    /// Whether the session has ended, so that nothing can be written in it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.validity.has_ended() || matches!(*self.session.state().borrow(), SessionState::Lost(_))
    }

    /// Ends the validity of everything in this session.
    pub(super) fn end(&self) {
        self.validity.end();
        let leases = std::mem::take(&mut *self.leases.lock().unwrap_or_else(PoisonError::into_inner));
        leases.iter().for_each(SessionValidity::end);
    }

    /// Waits until the server has answered all requests so far; returns whether it has. A client cannot see whether its
    /// last request, the end of the session, has arrived, so this comes before it.
    pub(crate) async fn confirm(&self) -> bool {
        if !self.is_connected() {
            return *self.session.state().borrow() == SessionState::Lost(Loss::Expired);
        }
        match self.session.commit(vec![Op::exists(&ZnodePath::root())]).await {
            Ok(_) => true,
            Err(CommitError { index, error }) => {
                index.is_some() || error == backend::Error::Lost(Loss::Expired)
            }
        }
    }

    /// The checks of a heartbeat, and the validities that they belong to. A validity that has ended is no longer
    /// checked.
    pub(super) fn checks(&self, namespace: &ZnodePath) -> (Vec<Op>, Vec<Validity>) {
        let mut checked = self.lock();
        checked.retain(|one| !one.validity.has_ended());
        let mut ops = vec![Op::exists(namespace)];
        ops.extend(
            checked.iter().map(|one| Op::Check { path: one.path.clone(), version: Some(one.version) }),
        );
        (ops, checked.iter().map(|one| one.validity.clone()).collect())
    }

    /// Reads `path` as the leader has it, after all requests of this session so far. This shows the outcome of a write
    /// whose reply was lost. Waits until the store answers or the session has ended.
    ///
    /// A znode to which permission is denied exists, and that is all that is known of it: servers from 3.8.4 on do not
    /// give its stat, either. It is not one that this session has created.
    pub(crate) async fn read_back(
        &self,
        path: &ZnodePath,
    ) -> Result<Result<Option<Znode>, Denied>, backend::Error> {
        let mut state = self.session.state();
        loop {
            if let SessionState::Lost(loss) = *state.borrow_and_update() {
                return Err(backend::Error::Lost(loss));
            }
            let read = async {
                self.session.sync(path).await?;
                match self.session.get(path).await {
                    Err(backend::Error::NotPermitted) => Ok(Err(Denied)),
                    found => found.map(Ok),
                }
            };
            match read.await {
                Err(backend::Error::Unknown(_)) => {
                    let _ = timeout(READ_BACK_PAUSE, state.changed()).await;
                }
                read => return read,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Checked>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause between two attempts to read back the outcome of a write, if the connection does not change meanwhile.
const READ_BACK_PAUSE: Duration = Duration::from_millis(50);

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("session", &self.id())
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}
