//! A session on an in-memory ensemble, for the tests of this module.

use std::{sync::Arc, time::Duration};

use super::{Keeper, access::Access, live::Live};
use crate::{
    backend::{Connector, CreateMode, Memory, Op, Session, path::ZnodePath},
    config::Config,
    random::Random,
    testing::Faults,
};

pub(super) const T: Duration = Duration::from_secs(10);

/// A process of a fleet, and another session that reads the store.
pub(super) struct Bench {
    pub(super) memory: Memory,
    pub(super) faults: Faults,
    pub(super) keeper: Keeper,
    pub(super) access: Access,
    pub(super) observer: Arc<dyn Session>,
}

pub(super) fn path(text: &str) -> ZnodePath {
    text.parse().unwrap()
}

pub(super) fn create(text: &str) -> Op {
    Op::create(&path(text), [], CreateMode::Persistent)
}

impl Bench {
    pub(super) async fn new() -> Bench {
        let memory = Memory::new();
        let observer = memory.open(Duration::from_secs(3600)).await.unwrap();
        observer.commit(vec![create("/ns")]).await.unwrap();
        let faults = Faults::new(Arc::new(memory.clone()));
        let connector = Arc::new(faults.clone());
        let keeper = Keeper::start(connector, Config::default(), path("/ns"), Random::new(Some(7)));
        let access = keeper.access(T);
        access.live().await.unwrap();
        Bench { memory, faults, keeper, access, observer }
    }

    pub(super) async fn live(&self) -> Arc<Live> {
        self.access.live().await.unwrap()
    }

    pub(super) async fn names(&self, folder: &str) -> Vec<String> {
        self.observer.children(&path(folder)).await.unwrap().0
    }
}
