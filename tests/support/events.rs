//! What the library logs while a test runs.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt};

/// Keeps the events of one module.
#[derive(Clone, Debug)]
pub struct Events {
    target: &'static str,
    heard: Arc<Mutex<Vec<(Level, String)>>>,
}

impl Events {
    /// Those of the module `target`, once it listens.
    pub fn of(target: &'static str) -> Events {
        Events { target, heard: Arc::default() }
    }

    /// Listens on this thread until the guard is dropped.
    pub fn listen(&self) -> DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }

    /// What was heard at this level since it was last asked: each event as its fields, `name=value `.
    pub fn take(&self, level: Level) -> Vec<String> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, rest) = std::mem::take(&mut *heard).into_iter().partition(|(its, _)| *its == level);
        *heard = rest;
        let asked: Vec<(Level, String)> = asked;
        asked.into_iter().map(|(_, text)| text).collect()
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == self.target {
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            let heard = (*event.metadata().level(), fields.0);
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
        }
    }
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}
