//! Gives back the entries of workers that are gone, and removes results that are not collected.

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
    moves::{CREATED, DELETED, Owned},
    names::{SetAside, path_of, readable},
    shared::{ASIDE, Shared, count, lay_out},
    value::{Back, Value},
};
use crate::{
    backend::{self, Watch, Znode},
    backoff::Backoff,
    metrics,
    session::{
        Live,
        commit::{Evidence, Unapplied, Verdict},
        follow::Follower,
        later::Later,
        read::{Denied, read_each},
        requests::delete_each,
    },
};

/// The longest wait between a change of the claims and the check of them, and how much longer it is for each claim.
/// With more workers there are more changes, and more processes that check.
const DELAY: Duration = Duration::from_millis(500);
const DELAY_FOR_EACH: Duration = Duration::from_millis(2);

/// How many values are read at once to learn their claims.
const LEARNED_AT_ONCE: usize = 256;

/// The first and the longest pause after a check that failed.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// See the module documentation.
pub(super) struct Recovery {
    shared: Arc<Shared>,
    /// The claim of each owned entry; `None` if a program without claims has taken it. An owned entry never changes its
    /// claim, so each is read once. Ordered, so that requests are sent in a certain order.
    known: BTreeMap<Entry, Option<String>>,
    aside: SetAside,
    /// Those that could not be read or given back: they are tried again after a while.
    later: Later<Entry>,
    /// Those among them that were logged.
    reported: HashSet<Entry>,
    /// Whether this process has ended an entry since results were last counted.
    has_ended: bool,
}

impl Recovery {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Recovery {
            shared,
            known: BTreeMap::new(),
            aside: SetAside::default(),
            later: Later::new(),
            reported: HashSet::new(),
            has_ended: false,
        }
    }
}

impl Follower for Recovery {
    async fn run(&mut self, live: &Arc<Live>) {
        let shared = self.shared.clone();
        let mut backoff = Backoff::new(PAUSE, LONGEST_PAUSE);
        loop {
            let (claims, mut watch) = match self.check(live).await {
                Ok(seen) => seen,
                Err(error) => {
                    debug!(%error, "the claims could not be checked");
                    // Callers do not wait for what the store refuses.
                    if !error.is_unknown()
                        && !matches!(error, backend::Error::NoNode | backend::Error::BadVersion)
                    {
                        shared.has_recovered.send_replace(true);
                    }
                    sleep(backoff.next_delay(live.random.unit())).await;
                    continue;
                }
            };
            backoff.reset();
            shared.has_recovered.send_replace(true);
            let left = self.later.next().map(|due| due.saturating_since(shared.clock.now()));
            tokio::select! {
                biased;
                _ = watch.fired() => {}
                () = shared.ended.notified() => self.has_ended = true,
                () = sleep(left.unwrap_or_default()), if left.is_some() => {}
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
        // Without recovery, entries of dead workers would never come back, so the queue must not go on.
        self.shared.listing.close();
        self.shared.has_recovered.send_replace(true);
    }
}

impl Recovery {
    /// Gives back the owned entries whose claim is gone. Returns how many claims there are, and a watch on them.
    async fn check(&mut self, live: &Live) -> Result<(usize, Watch), backend::Error> {
        let (shared, session) = (self.shared.clone(), &*live.session);
        let layout = shared.layout();
        let read = async {
            // The watch comes first, so that an entry that is taken and abandoned after that makes it fire.
            let (claims, _, watch) = session.watch_children(&layout.claims).await?;
            let (owned, _) = session.children(&layout.owned).await?;
            Ok::<_, backend::Error>((claims, watch, owned))
        };
        let (claims, watch, owned) = match read.await {
            Err(backend::Error::NoNode) => {
                lay_out(session, layout).await.map_err(|failure| failure.error)?;
                return Err(backend::Error::NoNode);
            }
            read => read?,
        };
        let report = |name: &str| report(&layout.owned, name, "its name is not that of an entry");
        let owned = self.aside.sort_out(&layout.owned, &owned, report);
        self.later.due(shared.clock.now());
        self.read_new(live, owned).await?;
        let mut claims: HashSet<_> = claims.into_iter().collect();
        let mut dead = self.without(&claims);
        if !dead.is_empty() {
            // They may have been taken since the claims were read. An entry and its claim are created in one
            // transaction, so an entry that was read before and has no claim in this second read has lost it.
            let (now, _) = session.children(&layout.claims).await?;
            claims = now.into_iter().collect();
            dead = self.without(&claims);
        }
        // In random order, because another process may do the same at this moment.
        live.random.shuffle(&mut dead);
        for (entry, claim) in dead {
            self.give_back(live, entry, &claim).await?;
        }
        Ok((claims.len(), watch))
    }

    /// The owned entries whose claim is not among these, each with its claim.
    fn without(&self, claims: &HashSet<String>) -> Vec<(Entry, String)> {
        let taken = self.known.iter().filter_map(|(entry, claim)| Some((entry, claim.as_ref()?)));
        let taken = taken.filter(|(entry, _)| !self.later.contains(entry));
        let dead = taken.filter(|(_, claim)| !claims.contains(*claim));
        dead.map(|(entry, claim)| (entry.clone(), claim.clone())).collect()
    }

    /// Reads the owned entries that are new since the last check.
    async fn read_new(&mut self, live: &Live, owned: Vec<Entry>) -> Result<(), backend::Error> {
        let there: HashSet<_> = owned.iter().collect();
        self.known.retain(|entry, _| there.contains(entry));
        self.later.retain(|entry| there.contains(entry));
        self.reported.retain(|entry| there.contains(entry));
        let is_unread = |entry: &&Entry| !self.known.contains_key(*entry) && !self.later.contains(entry);
        let unread: Vec<_> = owned.iter().filter(is_unread).cloned().collect();
        let shared = self.shared.clone();
        let folder = &shared.layout().owned;
        // Not all at once: of each value, only the claim is kept.
        for unread in unread.chunks(LEARNED_AT_ONCE) {
            let paths: Vec<_> = unread.iter().map(|entry| path_of(folder, entry)).collect();
            let found = read_each(&*live.session, &paths, &shared.sizes.owned).await?;
            for (entry, found) in unread.iter().zip(found) {
                match found {
                    Ok(Some((data, _))) => {
                        self.known.insert(entry.clone(), Value::read(&data).claim());
                    }
                    Ok(None) => {}
                    Err(Denied) => self.set_aside(entry, "permission denied by ACL"),
                }
            }
        }
        Ok(())
    }

    fn set_aside(&mut self, entry: &Entry, why: &str) {
        self.later.insert(entry.clone(), self.shared.clock.now() + ASIDE);
        if self.reported.insert(entry.clone()) {
            report(&self.shared.layout().owned, entry.name(), why);
        }
    }

    /// Gives back the entry that was taken under this claim.
    async fn give_back(&mut self, live: &Live, entry: Entry, claim: &str) -> Result<(), backend::Error> {
        let shared = self.shared.clone();
        let path = path_of(&shared.layout().owned, &entry);
        let (data, stat) = match live.session.get(&path).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            Err(error @ backend::Error::NotPermitted) => {
                self.set_aside(&entry, &error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let value = Value::read(&data);
        if value.claim().as_deref() != Some(claim) {
            // An operator has removed the folder, so numbers start again, and this is another entry of the same name.
            self.known.remove(&entry);
            return Err(backend::Error::BadVersion);
        }
        let owned = Owned { entry, path, version: stat.version, value };
        let worker = owned.value.worker().unwrap_or_default();
        let attempt = owned.value.attempt();
        let reason = Some(format!("its worker `{worker}` was gone before it ended the entry"));
        let ops = shared.moves.give_back(&owned, &Back { attempt, reason, ..Back::default() });
        let judge = |found: Option<&Znode>| match found {
            Some((_, now)) if (now.czxid, now.version) == (stat.czxid, stat.version) => Verdict::NotApplied,
            // This process or another one has given it back.
            _ => Verdict::Applied,
        };
        let Owned { entry, path, .. } = &owned;
        // Another user has it now. It is set aside, as one that is denied from the beginning.
        let evidence = Evidence::new(path, &judge).if_denied(Verdict::Overtaken);
        match live.commit_once(&ops, evidence).await {
            Ok(applied) => {
                let root = shared.layout().root.as_str();
                if shared.moves.is_dead_after(attempt) {
                    // The process that had the delivery can count its end no more.
                    metrics::QUEUE_ENDED.add(&[root, "dead"]);
                } else {
                    shared.added(applied.created(CREATED).as_ref(), Duration::ZERO);
                }
                metrics::QUEUE_RECOVERED.add(&[root]);
                info!(%entry, worker, attempt, "the worker is gone: its entry is given back");
            }
            Err(Unapplied::Refused {
                index: DELETED,
                error: backend::Error::NoNode | backend::Error::BadVersion,
                ..
            }) => debug!(%entry, "another process has given it back"),
            Err(Unapplied::Refused { error: backend::Error::NoNode, .. }) => {
                lay_out(&*live.session, shared.layout()).await.map_err(|failure| failure.error)?;
                return Err(backend::Error::NoNode);
            }
            // It may be done at the next attempt: the connection broke, or the numbers are taken that come next.
            Err(
                Unapplied::Unknown(error)
                | Unapplied::Failed(error @ backend::Error::Unreachable(_))
                | Unapplied::Refused { error: error @ backend::Error::NodeExists, .. },
            ) => return Err(error),
            Err(error) => self.set_aside(entry, &error.to_string()),
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
