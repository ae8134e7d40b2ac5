use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    task::{Context, Wake},
    time::Duration,
};

use super::*;
use crate::{
    backoff::Pauses,
    clock::{Clock as _, TokioClock},
    group::register::{Admission, Register},
    ring::{self, HashRing},
    run::table::{Settings, Table},
    session::validity::{SessionValidity, Validity},
};

/// Counts the guards when the report wakes the runner.
struct AtTheReport {
    register: Arc<Register>,
    guards: AtomicUsize,
}

impl Wake for AtTheReport {
    fn wake(self: Arc<Self>) {
        self.guards.store(self.register.counts().sum::<usize>(), SeqCst);
    }
}

#[test]
fn its_guard_has_ended_before_the_runner_knows_of_its_end() {
    let all = HashRing::builder().member("a").build().unwrap().ranges("a");
    let clock = Arc::new(TokioClock::new());
    let session = SessionValidity::new(clock.clone(), clock.now() + Duration::from_secs(5));
    let register = Register::new("g".into(), Validity::new(&session));
    register.admit(&Admission::within(all.clone()));
    let in_flight = register.start(ring::position(&7), &all, 1).expect("it is ours");

    let second = Duration::from_secs(1);
    let pauses = Pauses { first: second, longest: second };
    let settings = Settings { drain: second, starts_per_second: NonZeroU32::new(1), pauses };
    let mut table = Table::new(settings, [Arc::new(7_u32)]);
    table.own(&all, clock.now());
    let (id, key) = table.next_start(clock.now()).expect("it is its turn");

    let (ends, mut reports) = mpsc::unbounded_channel();
    let guarded = Guarded::new(Held::new(key, in_flight), id, ends);
    let woken = Arc::new(AtTheReport { register: register.clone(), guards: AtomicUsize::new(usize::MAX) });
    assert!(reports.poll_recv(&mut Context::from_waker(&woken.clone().into())).is_pending());
    assert_eq!(register.counts().sum::<usize>(), 1);
    drop(guarded);
    assert_eq!(woken.guards.load(SeqCst), 0);
}
