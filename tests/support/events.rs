//! What the library logs while a test runs.

use std::{cell::RefCell, fmt::Debug, sync::Once};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt};

/// The events of one module on this thread, which is that of the test and its runtime, from its creation on.
#[derive(Debug)]
pub struct Events(());

struct Heard {
    target: &'static str,
    events: Vec<(Level, String)>,
}

thread_local! {
    static HEARD: RefCell<Option<Heard>> = const { RefCell::new(None) };
}

impl Events {
    /// Listens to the module `target`.
    pub fn of(target: &'static str) -> Events {
        // One subscriber for all threads: with one for each, a thread that has none can switch an event off for all
        // others when it is the first to come by.
        static LISTEN: Once = Once::new();
        LISTEN.call_once(|| {
            let listener = tracing_subscriber::registry().with(Listener);
            tracing::subscriber::set_global_default(listener).expect("nobody else listens in tests");
        });
        HEARD.set(Some(Heard { target, events: Vec::new() }));
        Events(())
    }

    /// What was heard at this level since it was last asked: each event as its fields, `name=value `.
    pub fn take(&self, level: Level) -> Vec<String> {
        HEARD.with_borrow_mut(|heard| {
            let events =
                heard.as_mut().map(|heard| &mut heard.events).expect("it listens as long as it lives");
            let asked = events.extract_if(.., |(its, _)| *its == level);
            asked.map(|(_, text)| text).collect()
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        HEARD.set(None);
    }
}

struct Listener;

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Threads that are ending log too.
        let _ = HEARD.try_with(|heard| {
            if let Some(heard) =
                heard.borrow_mut().as_mut().filter(|it| it.target == event.metadata().target())
            {
                let mut fields = Fields(String::new());
                event.record(&mut fields);
                heard.events.push((*event.metadata().level(), fields.0));
            }
        });
    }
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}
