//! What the driver has of the current session.

use std::{collections::VecDeque, sync::Arc};

use super::{
    super::{
        engine,
        handover::{Action, Handover, Incarnation, Places},
        joining::{self, Znode},
        register::Register,
    },
    requests::{Answer, Store},
    watches::Watches,
};
use crate::{
    backend::{BoxFuture, Watch},
    clock::Moment,
    session::{Live, validity::SessionValidity},
    watch,
};

/// The current session as the driver uses it.
pub(super) struct Present {
    pub(super) store: Store,
    pub(super) connection: watch::Receiver<bool>,
    pub(super) watches: Watches,
    /// The watch of the znode that another process has at our path.
    pub(super) occupied: Option<Watch>,
    /// What is still to be asked, in this order.
    pub(super) requests: VecDeque<Request>,
    pub(super) under_way: Option<BoxFuture<'static, Reply>>,
    /// A heartbeat goes beside the other requests: the lease must not lapse because much is being read. There is one at
    /// a time.
    pub(super) heartbeat: Option<BoxFuture<'static, Answer>>,
    /// When that was sent.
    pub(super) heartbeat_sent: Moment,
    /// The creation of the znode of ours that the handover knows of.
    pub(super) announced: Option<i64>,
    /// Whether the engine knows of the session: the head has to exist before our znode.
    pub(super) is_joining: bool,
    pub(super) own: Option<Own>,
}

/// Our znode, and the work in progress of its incarnation.
pub(super) struct Own {
    pub(super) incarnation: Incarnation,
    pub(super) lease: SessionValidity,
    pub(super) register: Arc<Register>,
    /// A lease was granted. Before that there is nothing to lapse.
    pub(super) is_granted: bool,
    /// When a heartbeat was confirmed last.
    pub(super) confirmed: Moment,
}

pub(super) enum Request {
    Join(engine::Action),
    Core(Action),
}

pub(super) enum Reply {
    Join(joining::Outcome),
    Core(Answer),
}

impl Drop for Present {
    fn drop(&mut self) {
        self.own.iter().for_each(|own| own.lease.end());
    }
}

impl Present {
    pub(super) fn new(live: Arc<Live>, places: Arc<Places>) -> Present {
        Present {
            connection: live.connection(),
            store: Store::new(live, places),
            watches: Watches::default(),
            occupied: None,
            requests: VecDeque::new(),
            under_way: None,
            heartbeat: None,
            heartbeat_sent: Moment::default(),
            announced: None,
            is_joining: false,
            own: None,
        }
    }

    /// Sends the next request, if none is under way.
    pub(super) fn ask_next(&mut self, core: &Handover) {
        if self.under_way.is_some() {
            return;
        }
        let Some(request) = self.requests.pop_front() else { return };
        let store = self.store.clone();
        self.under_way = Some(match request {
            Request::Core(action) => {
                let watched = self.watches.keys();
                Box::pin(async move { Reply::Core(store.ask(action, watched).await) })
            }
            Request::Join(action) => {
                let payload = store.places.own_data(&core.part());
                Box::pin(async move {
                    let Places { group, own, .. } = &*store.places;
                    let znode = Znode { group, own, payload };
                    Reply::Join(znode.perform(&*store.live.session, action).await)
                })
            }
        });
    }
}
