//! Gives back what was taken by workers that are gone, and removes results that are not collected.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{
    cache::report,
    entry::Entry,
    moves::{DELETED, Owned},
    names::{SetAside, path_of, readable},
    shared::{Shared, count, lay_out},
    value::Value,
};
use crate::{
    backend::{self, Watch, Znode},
    backoff::Backoff,
    session::{
        Live,
        commit::{Evidence, Unapplied, Verdict},
        follow::Follower,
        read::{Denied, read_each},
        requests::delete_each,
    },
};

/// The longest wait between a change of the claims and a look at them, and how much longer it is for each claim: the
/// more workers there are, the more looks each change would cause, and the more of them look for the others.
const DELAY: Duration = Duration::from_millis(500);
const DELAY_FOR_EACH: Duration = Duration::from_millis(2);

/// How many values are read at once to learn their claims.
const LEARNED_AT_ONCE: usize = 256;

/// The first and the longest pause after a look that failed.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// See the module documentation.
pub(super) struct Recovery {
    shared: Arc<Shared>,
    /// Which claim each owned entry was taken under; `None` if it is not ours to give back. An owned entry keeps its
    /// claim for as long as it is there, so each is read once. Ordered, so that the order of what is done is certain.
    known: BTreeMap<Entry, Option<String>>,
    aside: SetAside,
    /// Whether something has ended here since results were last counted.
    has_ended: bool,
}

impl Recovery {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Recovery { shared, known: BTreeMap::new(), aside: SetAside::default(), has_ended: false }
    }
}

impl Follower for Recovery {
    async fn run(&mut self, live: &Arc<Live>) {
        let shared = self.shared.clone();
        let mut backoff = Backoff::new(PAUSE, LONGEST_PAUSE);
        loop {
            let (claims, mut watch) = match self.look(live).await {
                Ok(seen) => seen,
                Err(error) => {
                    debug!(%error, "the claims were not looked at");
                    sleep(backoff.next_delay(live.random.unit())).await;
                    continue;
                }
            };
            backoff.reset();
            tokio::select! {
                biased;
                _ = watch.fired() => {}
                () = shared.ended.notified() => self.has_ended = true,
            }
            let longest = DELAY + DELAY_FOR_EACH * u32::try_from(claims).unwrap_or(u32::MAX);
            sleep(longest.mul_f64(live.random.unit())).await;
            if self.has_ended {
                match trim(live, &shared).await {
                    Ok(()) => self.has_ended = false,
                    Err(error) => debug!(%error, "results were not counted"),
                }
            }
        }
    }

    fn close(&mut self) {
        // Without it, what dead workers had is lost to this process; the queue is of no use any more.
        self.shared.listing.close();
    }
}

impl Recovery {
    /// Gives back what has no claim any more. Returns how many claims there are, and a watch on them.
    async fn look(&mut self, live: &Live) -> Result<(usize, Watch), backend::Error> {
        let (shared, session) = (self.shared.clone(), &*live.session);
        let layout = shared.layout();
        let read = async {
            // The watch before all else: what is taken and abandoned after that makes it fire.
            let (claims, _, watch) = session.watch_children(&layout.claims).await?;
            let (owned, _) = session.children(&layout.owned).await?;
            Ok::<_, backend::Error>((claims, watch, owned))
        };
        let (claims, watch, owned) = match read.await {
            Err(backend::Error::NoNode) => {
                lay_out(session, layout).await?;
                return Err(backend::Error::NoNode);
            }
            read => read?,
        };
        let report = |name: &str| report(&layout.owned, name, "its name is not that of an entry");
        let owned = self.aside.sort_out(&layout.owned, &owned, report);
        self.learn(live, owned).await?;
        let mut claims: HashSet<_> = claims.into_iter().collect();
        let mut dead = self.without(&claims);
        if !dead.is_empty() {
            // They may have been taken since. An entry and its claim appear in one transaction, so what is owned in the
            // last reading and has no claim in this one has lost it.
            let (now, _) = session.children(&layout.claims).await?;
            claims = now.into_iter().collect();
            dead = self.without(&claims);
        }
        // Another process that looks at this moment starts elsewhere.
        live.random.shuffle(&mut dead);
        for (entry, claim) in dead {
            self.give_back(live, entry, &claim).await?;
        }
        Ok((claims.len(), watch))
    }

    /// What is owned under none of these claims, and under which it was taken.
    fn without(&self, claims: &HashSet<String>) -> Vec<(Entry, String)> {
        let taken = self.known.iter().filter_map(|(entry, claim)| Some((entry, claim.as_ref()?)));
        let dead = taken.filter(|(_, claim)| !claims.contains(*claim));
        dead.map(|(entry, claim)| (entry.clone(), claim.clone())).collect()
    }

    /// Reads what was not yet there at the last look.
    async fn learn(&mut self, live: &Live, owned: Vec<Entry>) -> Result<(), backend::Error> {
        let there: HashSet<_> = owned.iter().collect();
        self.known.retain(|entry, _| there.contains(entry));
        let unread: Vec<_> = owned.iter().filter(|entry| !self.known.contains_key(*entry)).cloned().collect();
        let shared = self.shared.clone();
        let folder = &shared.layout().owned;
        // Not all at once: of each value, only the claim is kept.
        for unread in unread.chunks(LEARNED_AT_ONCE) {
            let paths: Vec<_> = unread.iter().map(|entry| path_of(folder, entry)).collect();
            let found = read_each(&*live.session, &paths, &shared.sizes.owned).await?;
            for (entry, found) in unread.iter().zip(found) {
                match found {
                    Ok(Some((data, _))) => {
                        self.known.insert(entry.clone(), Value::read(&data).claim().map(str::to_owned));
                    }
                    Ok(None) => {}
                    Err(Denied) => self.set_aside(entry.clone(), "permission denied by ACL"),
                }
            }
        }
        Ok(())
    }

    fn set_aside(&mut self, entry: Entry, why: &str) {
        if self.aside.insert(entry.name()) {
            report(&self.shared.layout().owned, entry.name(), why);
        }
        self.known.insert(entry, None);
    }

    /// Gives back what was taken under this claim.
    async fn give_back(&mut self, live: &Live, entry: Entry, claim: &str) -> Result<(), backend::Error> {
        let shared = self.shared.clone();
        let path = path_of(&shared.layout().owned, &entry);
        let (data, stat) = match live.session.get(&path).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            Err(error @ backend::Error::NotPermitted) => {
                self.set_aside(entry, &error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let value = Value::read(&data);
        if value.claim() != Some(claim) {
            // An operator has removed the folder, its numbers have begun anew, and this is another of that name.
            self.known.remove(&entry);
            return Err(backend::Error::BadVersion);
        }
        let owned = Owned { entry, path, version: stat.version, value };
        let ops = shared.moves.give_back(&owned, owned.value.attempt());
        let judge = |found: Option<&Znode>| match found {
            Some((_, now)) if (now.czxid, now.version) == (stat.czxid, stat.version) => Verdict::NotApplied,
            // By us or by another process.
            _ => Verdict::Applied,
        };
        let Owned { entry, value, path, .. } = &owned;
        match live.commit_once(&ops, Evidence::new(path, &judge)).await {
            Ok(_) => {
                let (worker, attempt) = (value.worker().unwrap_or_default(), value.attempt());
                info!(%entry, worker, attempt, "its worker is gone: given back");
            }
            Err(Unapplied::Refused {
                index: DELETED,
                error: backend::Error::NoNode | backend::Error::BadVersion,
            }) => debug!(%entry, "another process has given it back"),
            Err(Unapplied::Refused { error: backend::Error::NoNode, .. }) => {
                lay_out(&*live.session, shared.layout()).await?;
                return Err(backend::Error::NoNode);
            }
            // It may be done at the next attempt: the connection broke, or the numbers are taken that come next.
            Err(
                Unapplied::Unknown(error)
                | Unapplied::Failed(error @ backend::Error::Unreachable(_))
                | Unapplied::Refused { error: error @ backend::Error::NodeExists, .. },
            ) => return Err(error),
            Err(error) => self.set_aside(entry.clone(), &error.to_string()),
        }
        Ok(())
    }
}

/// Removes the oldest results if there are more than are to be kept.
async fn trim(live: &Live, shared: &Shared) -> Result<(), backend::Error> {
    let (done, keep) = (&shared.layout().done, shared.keep_results);
    if count(&*live.session, done).await? <= keep {
        return Ok(());
    }
    let (names, _) = live.session.children(done).await?;
    let mut results: Vec<Entry> = names.iter().filter_map(|name| readable(done, name)).collect();
    results.sort_unstable_by(Entry::by_age);
    results.truncate(results.len().saturating_sub(keep));
    warn!(folder = %done, results = results.len(), "results are not collected: the oldest are removed");
    delete_each(&*live.session, results.iter().map(|entry| path_of(done, entry)).collect()).await
}
