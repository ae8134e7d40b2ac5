use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::*;
use crate::{
    backend::Op,
    session::{
        follow::{Sessions, follow},
        tests::{Bench, create, path},
    },
};

/// Keeps the names, and counts the listings.
#[derive(Default)]
struct Kept {
    names: Mutex<Vec<String>>,
    count: AtomicUsize,
    panics: AtomicBool,
}

impl Kept {
    fn names(&self) -> Vec<String> {
        self.names.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Contents for Arc<Kept> {
    async fn adopt(
        &mut self,
        _live: &Live,
        names: &[String],
        _folder: &Stat,
        _occasion: Occasion,
    ) -> Result<(), backend::Error> {
        assert!(!self.panics.load(Ordering::SeqCst), "a panic for a test");
        self.count.fetch_add(1, Ordering::SeqCst);
        *self.names.lock().unwrap() = names.to_vec();
        Ok(())
    }

    async fn make(&mut self, live: &Live) -> Result<(), Failure> {
        live.session.commit(vec![create("/ns/f")]).await.map(drop).map_err(|failed| failed.error.into())
    }
}

struct Listed {
    bench: Bench,
    listing: Arc<Listing>,
    kept: Arc<Kept>,
    _following: JoinSet<()>,
}

impl Listed {
    /// A listing of a folder that is created when the first caller asks.
    async fn new(unasked: Option<Duration>) -> Listed {
        let bench = Bench::new().await;
        let settings = Settings {
            folder: path("/ns/f"),
            clock: bench.memory.clock(),
            random: Random::new(Some(1)),
            unasked,
            closed: CancellationToken::new(),
        };
        let closed = settings.closed.clone();
        let (listing, kept) = (Listing::new(settings), Arc::<Kept>::default());
        let lister = Lister { listing: listing.clone(), contents: kept.clone() };
        let mut following = JoinSet::new();
        following.spawn(follow(Sessions::new(&bench.access), lister, closed));
        Listed { bench, listing, kept, _following: following }
    }

    async fn commit(&self, op: Op) {
        self.bench.observer.commit(vec![op]).await.unwrap();
    }

    /// The names as of a listing from now on.
    async fn fresh(&self) -> Vec<String> {
        let asking = self.listing.ask_anew();
        let listed = self.listing.until(|| self.listing.answers(&asking).then(|| self.kept.names()));
        listed.await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_listed_when_a_caller_asks_and_again_only_when_it_has_changed() {
    let listed = Listed::new(None).await;
    tokio::time::sleep(LONGEST_PAUSE).await;
    assert_eq!(listed.kept.count(), 0, "no caller has asked");
    let asking = listed.listing.ask();
    listed.listing.until(|| listed.listing.answers(&asking).then_some(())).await.unwrap();
    assert_eq!(listed.kept.count(), 1);
    tokio::time::sleep(LONGEST_PAUSE).await;
    assert_eq!(listed.kept.count(), 1, "nothing has changed");
    listed.commit(create("/ns/f/a")).await;
    listed.listing.until(|| (!listed.kept.names().is_empty()).then_some(())).await.unwrap();
    drop(asking);
    listed.commit(create("/ns/f/b")).await;
    tokio::time::sleep(LONGEST_PAUSE).await;
    assert_eq!(listed.kept.names(), ["a"], "no caller asks any more");
    assert_eq!(listed.fresh().await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_asks_anew_is_answered_by_a_listing_that_began_later() {
    let listed = Listed::new(None).await;
    listed.fresh().await;
    let before = listed.kept.count();
    for _ in 0..10 {
        listed.fresh().await;
    }
    assert_eq!(listed.kept.count(), before + 10);
}

#[tokio::test(start_paused = true)]
async fn while_everything_changes_it_is_listed_with_pauses_and_callers_are_answered_all_the_same() {
    let listed = Listed::new(None).await;
    let asking = listed.listing.ask();
    let changing = async {
        for number in 0.. {
            listed.commit(create(&format!("/ns/f/{number}"))).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    listed.fresh().await;
    let before = listed.kept.count();
    let _ = tokio::time::timeout(Duration::from_secs(2), changing).await;
    let count = listed.kept.count() - before;
    // The shortest pause, halved by the jitter, allows 400; without a pause it would be one for each of 2,000 changes.
    assert!((10..=400).contains(&count), "{count} listings in two seconds");
    assert!(listed.listing.answers(&asking));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_no_caller_asks_for_is_listed_after_a_while_where_that_is_wanted() {
    let listed = Listed::new(Some(Duration::from_millis(100))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = listed.kept.count();
    for number in 0..50 {
        listed.commit(create(&format!("/ns/f/{number}"))).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(listed.kept.names().len(), 50);
    assert!(listed.kept.count() - before <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_by_this_process_causes_a_listing_only_if_the_contents_are_invalidated() {
    let listed = Listed::new(None).await;
    listed.fresh().await;
    let asking = listed.listing.ask();
    let before = listed.kept.count();
    listed.listing.note_local_change();
    tokio::time::sleep(LONGEST_PAUSE).await;
    assert_eq!(listed.kept.count(), before, "it is known here, and no listing was under way");
    listed.listing.invalidate();
    tokio::time::sleep(LONGEST_PAUSE).await;
    assert_eq!(listed.kept.count(), before + 1);
    drop(asking);
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_gone_is_created_again_and_a_refusal_reaches_callers() {
    let listed = Listed::new(None).await;
    listed.fresh().await;
    listed.commit(Op::delete(&path("/ns/f"), None)).await;
    assert!(listed.fresh().await.is_empty());
    listed.bench.faults.deny(&path("/ns/f"));
    let asking = listed.listing.ask_anew();
    let refused = listed.listing.until(|| listed.listing.answers(&asking).then_some(())).await;
    assert!(matches!(refused, Err(Stopped::Refused(Error::NotPermitted { .. }))), "{refused:?}");
    listed.bench.faults.allow();
    while listed.listing.last_error().is_some() {
        tokio::time::sleep(RETRY).await;
    }
    listed.fresh().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_a_listing_is_adopted_closes_it_for_all_callers() {
    let listed = Listed::new(None).await;
    listed.fresh().await;
    listed.kept.panics.store(true, Ordering::SeqCst);
    let asking = listed.listing.ask_anew();
    let waiting = listed.listing.until(|| listed.listing.answers(&asking).then_some(()));
    assert!(matches!(waiting.await, Err(Stopped::Closed)));
    assert!(matches!(listed.listing.check(), Err(Stopped::Closed)));
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_asks_anew_is_listed_after_a_sync_also_when_the_first_attempt_failed() {
    let listed = Listed::new(None).await;
    listed.fresh().await;
    listed.bench.faults.deny(&path("/ns/f"));
    let asking = listed.listing.ask_anew();
    while listed.listing.last_error().is_none() {
        tokio::time::sleep(RETRY).await;
    }
    listed.bench.faults.allow();
    let syncs = listed.bench.faults.calls().syncs;
    while !listed.listing.answers(&asking) {
        tokio::time::sleep(RETRY).await;
    }
    assert!(
        listed.bench.faults.calls().syncs > syncs,
        "a server that is behind would not show what was done"
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_listing_in_a_session_follows_a_sync() {
    let listed = Listed::new(None).await;
    let asking = listed.listing.ask();
    for _ in 0..3 {
        let (count, syncs) = (listed.kept.count(), listed.bench.faults.calls().syncs);
        listed.bench.memory.expire(listed.bench.live().await.id());
        listed.listing.until(|| (listed.kept.count() > count).then_some(())).await.unwrap();
        assert!(
            listed.bench.faults.calls().syncs > syncs,
            "the server may be behind that of the last session"
        );
    }
    drop(asking);
}
