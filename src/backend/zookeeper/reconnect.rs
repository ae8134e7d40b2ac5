//! [`Reconnector`]: opens one connection of a session after another, as long as that can help.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use zookeeper_client as zk;

use super::{
    super::{Error, Loss, SessionId, SessionState},
    dial::{Dialer, pause},
    link::{Link, counts_as_silent, longest_silence, silence},
};
use crate::{
    clock::{BootClock, Clock, Moment},
    random::Random,
    task::Tasks,
};

/// When a server has replied the last time, and for how long without a reply the session is worth a further attempt.
pub(super) struct Contact(Mutex<Known>);

struct Known {
    replied: Moment,
    give_up_after: Duration,
}

impl Contact {
    /// A server has just replied.
    pub(super) fn new(session_timeout: Duration) -> Self {
        Contact(Mutex::new(Known { replied: BootClock.now(), give_up_after: session_timeout / 2 }))
    }

    /// Notes a reply.
    fn note_reply(&self) {
        let mut known = self.lock();
        known.replied = BootClock.now();
    }

    /// Notes the outcome of a request, by its error.
    pub(super) fn note(&self, error: Option<&Error>) {
        if !error.is_some_and(Error::is_unknown) {
            self.note_reply();
        }
    }

    pub(super) fn give_up_after(&self, silence: Duration) {
        self.lock().give_up_after = silence;
    }

    /// For how long no server has replied.
    fn silent_for(&self) -> Duration {
        BootClock.now().saturating_since(self.lock().replied)
    }

    /// For how long no server may reply before the session is given up.
    fn limit(&self) -> Duration {
        self.lock().give_up_after
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The present connection and the state of the session, for its handles.
#[derive(Clone)]
pub(super) struct Links {
    link: watch::Receiver<Option<Arc<Link>>>,
    state: watch::Receiver<SessionState>,
    closing: CancellationToken,
}

impl Links {
    pub(super) fn state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    /// The present connection. Waits for one while the session is suspended.
    ///
    /// Never one whose task has ended, although it may still be the present one: a request on it fails at once. A caller
    /// that tries again would then do so without a pause, and keep the thread that has to open the next one.
    pub(super) async fn link(&self) -> Result<Arc<Link>, Loss> {
        let is_usable =
            |link: &Option<Arc<Link>>| link.as_ref().is_some_and(|link| !link.serving().has_ended());
        if !self.closing.is_cancelled() {
            let link = self.link.borrow().clone();
            if let Some(link) = link.filter(|link| !link.serving().has_ended()) {
                return Ok(link);
            }
        }
        let mut links = self.link.clone();
        tokio::select! {
            biased;
            loss = self.lost() => Err(loss),
            () = self.closing.cancelled() => Err(Loss::Closed),
            link = links.wait_for(is_usable) => match link.as_deref() {
                Ok(Some(link)) => Ok(link.clone()),
                _ => Err(Loss::Closed),
            },
        }
    }

    /// Waits until the session has ended.
    pub(super) async fn lost(&self) -> Loss {
        let mut state = self.state.clone();
        match state.wait_for(|state| matches!(state, SessionState::Lost(_))).await.as_deref() {
            Ok(SessionState::Lost(loss)) => *loss,
            _ => Loss::Closed,
        }
    }
}

/// Publishes the connection and the state. Its drop publishes that the session is closed: after the end of the task, a
/// panic in it, or the end of the runtime (D7).
struct Publisher {
    session: SessionId,
    link: watch::Sender<Option<Arc<Link>>>,
    state: watch::Sender<SessionState>,
    epoch: u64,
}

impl Publisher {
    fn connected(&mut self, link: Arc<Link>) {
        self.link.send_replace(Some(link));
        self.epoch += 1;
        self.publish(SessionState::Connected { epoch: self.epoch });
    }

    fn not_connected(&self, state: SessionState) {
        self.link.send_replace(None);
        self.publish(state);
    }

    fn publish(&self, state: SessionState) {
        debug!(session = %self.session, ?state, "the state of the session has changed");
        self.state.send_replace(state);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if !matches!(*self.state.borrow(), SessionState::Lost(_)) {
            self.not_connected(SessionState::Lost(Loss::Closed));
        }
    }
}

/// The task of a session.
pub(super) struct Reconnector {
    dialer: Dialer,
    session: zk::SessionInfo,
    session_timeout: Duration,
    contact: Arc<Contact>,
    publisher: Publisher,
    closing: CancellationToken,
    tasks: Arc<Tasks>,
    random: Random,
}

impl Reconnector {
    pub(super) fn new(
        link: Link,
        dialer: Dialer,
        contact: Arc<Contact>,
        closing: CancellationToken,
        tasks: Arc<Tasks>,
    ) -> (Links, Self) {
        let session = link.client().session().clone();
        let session_timeout = link.client().session_timeout();
        let (links, link_of) = watch::channel(None);
        let (states, state) = watch::channel(SessionState::Suspended);
        let id = SessionId(session.id().0);
        let mut publisher = Publisher { session: id, link: links, state: states, epoch: 0 };
        publisher.connected(Arc::new(link));
        let random = Random::new(None);
        let reconnector = Reconnector {
            dialer,
            session,
            session_timeout,
            contact,
            publisher,
            closing: closing.clone(),
            tasks,
            random,
        };
        (Links { link: link_of, state, closing }, reconnector)
    }

    pub(super) async fn run(mut self) {
        let loss = loop {
            if let Some(loss) = self.serve().await {
                break loss;
            }
            self.publisher.not_connected(SessionState::Suspended);
            match self.reconnect().await {
                Ok(link) => self.publisher.connected(Arc::new(link)),
                Err(loss) => break loss,
            }
        };
        self.publisher.not_connected(SessionState::Lost(loss));
    }

    /// Waits until the present connection breaks; returns how the session has ended, if it has.
    async fn serve(&mut self) -> Option<Loss> {
        let link = self.publisher.link.borrow().clone()?;
        let target = link.target().to_owned();
        let (mut changes, serving) = (link.client().state_watcher(), link.serving().clone());
        let first = link.client().state();
        drop(link);
        let closing = self.closing.clone();
        let state = if first == zk::SessionState::SyncConnected {
            tokio::select! {
                biased;
                // The crate may have connected again already. That is a break, too.
                state = changes.changed() => Some(state),
                () = serving.ended() => None,
                () = closing.cancelled() => {
                    // The drop of the last handle of the client sends the request to end the session.
                    self.publisher.link.send_replace(None);
                    let closed = async { while !changes.changed().await.is_terminated() {} };
                    tokio::select! {
                        biased;
                        _ = timeout(self.session_timeout, closed) => {}
                        () = serving.ended() => {}
                    }
                    serving.stop();
                    return Some(Loss::Closed);
                }
            }
        } else {
            Some(first)
        };
        serving.stop();
        self.dialer.note(&target, self.is_silent());
        match state {
            Some(zk::SessionState::Expired) => Some(Loss::Expired),
            Some(zk::SessionState::AuthFailed) => Some(Loss::AuthFailed),
            Some(zk::SessionState::Closed) => Some(Loss::Closed),
            _ => None,
        }
    }

    /// Opens the next connection.
    ///
    /// An attempt that a server refuses does no harm. But an attempt that is not answered may have reached a server, and
    /// the server keeps the session for one more timeout then, although this client knows nothing of it. So once the
    /// session is of no more use when the next attempt ends, and each server was tried, one attempt waits long, and is the
    /// last: a server that was stopped for a while answers it when it goes on.
    async fn reconnect(&mut self) -> Result<Link, Loss> {
        let id = SessionId(self.session.id().0);
        // Certificates may have been renewed. If they cannot be read at this moment, those from before may still do.
        if let Err(error) = self.dialer.prepare(self.session_timeout) {
            warn!(session = %id, %error, "reconnecting with the certificates that were read before");
        }
        let (wait, longest) = (silence(self.session_timeout), longest_silence(self.session_timeout));
        let (mut attempts, mut answers, mut was_probed) = (0, false, false);
        loop {
            let targets = self.dialer.targets(self.session_timeout, &self.random).await;
            for target in &targets {
                let silent_for = self.contact.silent_for();
                if silent_for > self.session_timeout * 7 / 5 {
                    return Err(Loss::Expired);
                }
                attempts += 1;
                // After a reset, most servers answer the first attempt at once.
                let is_silent = self.is_silent() && !answers;
                let is_last =
                    is_silent && attempts >= targets.len() && silent_for + wait + wait > self.contact.limit();
                let began = BootClock.now();
                let attempt = self.attempt(target, is_last).await?;
                let took = BootClock.now().saturating_since(began);
                self.dialer.note(target, attempt.is_none() && counts_as_silent(took, self.session_timeout));
                match attempt {
                    Some(link) if !is_last || was_probed => return Ok(link),
                    Some(link) => {
                        // It would be closed only after as long a silence as it could wait for the server. That is right
                        // only if the server always takes so long.
                        link.serving().stop();
                        (attempts, answers, was_probed) = (0, true, true);
                    }
                    None if is_last && took >= longest / 2 => {
                        warn!(session = %id, ?silent_for, "no server replies; giving the session up, so that it can end there");
                        return Err(Loss::Closed);
                    }
                    None => answers = false,
                }
            }
            sleep(pause(self.session_timeout, self.random.unit())).await;
        }
    }

    /// Whether no server has replied for so long that the cause is silence, and not a reset.
    fn is_silent(&self) -> bool {
        counts_as_silent(self.contact.silent_for(), self.session_timeout)
    }

    /// Tries one server; `None` if it does not answer.
    async fn attempt(&self, target: &str, waits_long: bool) -> Result<Option<Link>, Loss> {
        let id = SessionId(self.session.id().0);
        let mut connector = self.dialer.connector().with_session(self.session.clone());
        if waits_long {
            connector = connector.with_connection_timeout(longest_silence(self.session_timeout));
        }
        match Link::open(connector, target, &self.tasks).await {
            Ok(link) if link.client().session_id() == self.session.id() => {
                self.contact.note_reply();
                // Reads of this session must not go back to before the break, and this server may be behind the last
                // one. Requests are processed in order, so this one need not be waited for.
                drop(link.client().sync("/"));
                Ok(Some(link))
            }
            Ok(link) => {
                let given = SessionId(link.client().session_id().0);
                warn!(session = %id, %given, %target, "the server has opened another session instead of this one");
                Err(Loss::Expired)
            }
            Err(zk::Error::SessionExpired) => Err(Loss::Expired),
            Err(zk::Error::AuthFailed) => Err(Loss::AuthFailed),
            Err(error) => {
                debug!(session = %id, %target, %error, "could not connect");
                Ok(None)
            }
        }
    }
}
