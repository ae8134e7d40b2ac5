//! Records what the library logs while a test runs.

use std::{cell::RefCell, fmt::Debug, sync::Once};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt, registry::LookupSpan};

/// The events of one module on this thread, which is that of the test and its runtime, from its creation on.
#[derive(Debug)]
pub struct Events(());

struct Recorded {
    target: &'static str,
    events: Vec<(Level, String)>,
}

thread_local! {
    static RECORDED: RefCell<Option<Recorded>> = const { RefCell::new(None) };
    static SPANS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// One subscriber for all threads: with one for each, a thread that has none can switch an event off for all others if it
/// logs the event first.
fn listen() {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| {
        let listener = tracing_subscriber::registry().with(Listener);
        tracing::subscriber::set_global_default(listener).expect("no other code sets a subscriber in tests");
    });
}

/// The spans that begin on this thread, from its creation on.
#[derive(Debug)]
pub struct Spans(());

impl Spans {
    pub fn record() -> Spans {
        listen();
        SPANS.set(Some(Vec::new()));
        Spans(())
    }

    /// Those of this name so far, each as the name of its parent and its fields: `parent: name=value `.
    pub fn of(&self, name: &str) -> Vec<String> {
        let prefix = format!("{name} in ");
        let of = |spans: &Option<Vec<String>>| {
            let spans = spans.iter().flatten().filter_map(|span| span.strip_prefix(&prefix));
            spans.map(str::to_owned).collect()
        };
        SPANS.with_borrow(of)
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        SPANS.set(None);
    }
}

impl Events {
    /// Records the events of the module `target`.
    pub fn of(target: &'static str) -> Events {
        listen();
        RECORDED.set(Some(Recorded { target, events: Vec::new() }));
        Events(())
    }

    /// Returns the events of this level since the last call, each as its fields, `name=value `.
    pub fn take(&self, level: Level) -> Vec<String> {
        RECORDED.with_borrow_mut(|recorded| {
            let events = recorded.as_mut().map(|it| &mut it.events).expect("it records as long as it lives");
            let asked = events.extract_if(.., |(its, _)| *its == level);
            asked.map(|(_, text)| text).collect()
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        RECORDED.set(None);
    }
}

struct Listener;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let _ = SPANS.try_with(|spans| {
            if let Some(spans) = spans.borrow_mut().as_mut() {
                let mut fields = Fields(String::new());
                attributes.record(&mut fields);
                let parent =
                    context.span(id).and_then(|span| span.parent()).map_or("none", |parent| parent.name());
                spans.push(format!("{} in {parent}: {}", attributes.metadata().name(), fields.0));
            }
        });
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // A thread that is ending may log, too.
        let _ = RECORDED.try_with(|recorded| {
            if let Some(recorded) =
                recorded.borrow_mut().as_mut().filter(|it| it.target == event.metadata().target())
            {
                let mut fields = Fields(String::new());
                event.record(&mut fields);
                recorded.events.push((*event.metadata().level(), fields.0));
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
