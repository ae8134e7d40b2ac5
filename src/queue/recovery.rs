//! Gives back what was taken by workers that are gone, and removes results that nobody collects.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    entry::Entry,
    layout::Layout,
    lister::{next_live, over},
    open::{PAUSE, Shared, count, lay_out},
    shelf::{LeftAlone, readable},
    value::Value,
};
use crate::{
    backend::{self, CommitError, CreateMode, Op, Session, Watch, path::ZnodePath},
    lease::Around,
    session::{
        Live,
        requests::{Denied, get_each, make_way},
    },
};

/// The longest wait between a change of the claims and a look at them, and how much longer it is for each claim: the
/// more workers there are, the more looks each change would cause, and the more of them look for the others.
const DELAY: Duration = Duration::from_millis(500);
const DELAY_FOR_EACH: Duration = Duration::from_millis(2);

/// How many results are removed in one transaction.
const AT_ONCE: usize = 100;

/// Runs until it is cancelled or there will never be a session again.
pub(crate) async fn run(shared: Arc<Shared>, cancelled: CancellationToken) {
    let mut task = Task {
        shared,
        known: HashMap::new(),
        left_alone: LeftAlone::default(),
        has_ended: false,
        dice: fastrand::Rng::new(),
    };
    cancelled.run_until_cancelled(task.follow()).await;
}

struct Task {
    shared: Arc<Shared>,
    /// Which claim each owned entry was taken under; `None` if it is nothing of ours to give back. An owned entry
    /// keeps its claim for as long as it is there, so each is read once.
    known: HashMap<Entry, Option<String>>,
    left_alone: LeftAlone,
    /// Whether something has ended here since results were last counted.
    has_ended: bool,
    dice: fastrand::Rng,
}

impl Task {
    async fn follow(&mut self) {
        let mut status = self.shared.leases.access().status();
        while let Some(live) = next_live(&mut status, drop).await {
            tokio::select! {
                () = self.watch(&live) => {}
                () = over(&mut status, &live) => {}
            }
        }
    }

    async fn watch(&mut self, live: &Live) {
        let shared = self.shared.clone();
        loop {
            let (claims, mut watch) = match self.look(live).await {
                Ok(seen) => seen,
                Err(error) => {
                    debug!(%error, "the claims were not looked at");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            tokio::select! {
                _ = watch.fired() => {}
                () = shared.ended.notified() => self.has_ended = true,
            }
            let longest = DELAY + DELAY_FOR_EACH * u32::try_from(claims).unwrap_or(u32::MAX);
            sleep(longest.mul_f64(self.dice.f64())).await;
            if self.has_ended {
                match trim(&*live.session, &shared).await {
                    Ok(()) => self.has_ended = false,
                    Err(error) => debug!(%error, "results were not counted"),
                }
            }
        }
    }

    /// Gives back what has no claim any more. Returns how many claims there are, and a watch on them.
    async fn look(&mut self, live: &Live) -> Result<(usize, Watch), backend::Error> {
        let (shared, session) = (self.shared.clone(), &*live.session);
        let layout = &shared.layout;
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
        let owned = self.left_alone.sort_out(&layout.owned, &owned);
        self.learn(session, layout, owned).await?;
        let mut claims: HashSet<_> = claims.into_iter().collect();
        let mut dead = self.without(&claims);
        if !dead.is_empty() {
            // They may have been taken since. An entry and its claim appear in one transaction, so what is owned in the
            // last reading and has no claim in this one has lost it.
            let (now, _) = session.children(&layout.claims).await?;
            claims = now.into_iter().collect();
            dead = self.without(&claims);
        }
        // Whoever else looks at this moment starts elsewhere.
        self.dice.shuffle(&mut dead);
        for (entry, claim) in dead {
            self.give_back(session, &entry, &claim).await?;
        }
        Ok((claims.len(), watch))
    }

    /// What is owned under none of these claims, and under which it was taken.
    fn without(&self, claims: &HashSet<String>) -> Vec<(Entry, String)> {
        let taken = self.known.iter().filter_map(|(entry, claim)| Some((entry, claim.as_ref()?)));
        let dead = taken.filter(|(_, claim)| !claims.contains(*claim));
        dead.map(|(entry, claim)| (entry.clone(), claim.clone())).collect()
    }

    /// Reads what was not yet there when it was last looked.
    async fn learn(
        &mut self,
        session: &dyn Session,
        layout: &Layout,
        owned: Vec<Entry>,
    ) -> Result<(), backend::Error> {
        let there: HashSet<_> = owned.iter().collect();
        self.known.retain(|entry, _| there.contains(entry));
        let unread: Vec<_> = owned.iter().filter(|entry| !self.known.contains_key(*entry)).cloned().collect();
        let paths: Vec<_> = unread.iter().map(|entry| path_of(&layout.owned, entry)).collect();
        let found = get_each(session, &paths).await?;
        for (entry, found) in unread.into_iter().zip(found) {
            match found {
                Ok(Some((data, _))) => {
                    self.known.insert(entry, Value::read(&data).claim().map(str::to_owned));
                }
                Ok(None) => {}
                Err(Denied) => self.leave_alone(entry, "it is not permitted to us"),
            }
        }
        Ok(())
    }

    fn leave_alone(&mut self, entry: Entry, why: &str) {
        self.left_alone.report(&self.shared.layout.owned, entry.name(), why);
        self.known.insert(entry, None);
    }

    /// Gives back what was taken under this claim.
    async fn give_back(
        &mut self,
        session: &dyn Session,
        entry: &Entry,
        claim: &str,
    ) -> Result<(), backend::Error> {
        let shared = self.shared.clone();
        let path = path_of(&shared.layout.owned, entry);
        let Some((data, stat)) = session.get(&path).await? else { return Ok(()) };
        let value = Value::read(&data);
        if value.claim() != Some(claim) {
            // Somebody has removed the folder, its numbers have begun anew, and this is another of that name.
            self.known.remove(entry);
            return Err(backend::Error::BadVersion);
        }
        let ops = give_back(&shared, &path, entry, stat.version, &value, value.attempt()).before;
        match session.commit(ops.clone()).await {
            Ok(_) => {
                let (worker, attempt) = (value.worker().unwrap_or_default(), value.attempt());
                info!(%entry, worker, attempt, "its worker is gone: given back");
            }
            Err(CommitError {
                index: Some(0),
                error: backend::Error::NoNode | backend::Error::BadVersion,
            }) => {
                debug!(%entry, "somebody else has given it back");
            }
            Err(CommitError { index: Some(_), error: backend::Error::NoNode }) => {
                lay_out(session, &shared.layout).await?;
                return Err(backend::Error::NoNode);
            }
            Err(CommitError { index: Some(index), error }) => {
                if make_way(session, &ops[index], &error).await {
                    return Err(error);
                }
                self.leave_alone(entry.clone(), &error.to_string());
            }
            Err(CommitError { index: None, error }) => return Err(error),
        }
        Ok(())
    }
}

/// Removes the oldest results if there are more than are to be kept.
async fn trim(session: &dyn Session, shared: &Shared) -> Result<(), backend::Error> {
    let (done, keep) = (&shared.layout.done, shared.options.keep_results);
    if count(session, done).await? <= keep {
        return Ok(());
    }
    let (names, _) = session.children(done).await?;
    let mut results: Vec<Entry> = names.iter().filter_map(|name| readable(done, name)).collect();
    results.sort_unstable_by(Entry::by_age);
    results.truncate(results.len().saturating_sub(keep));
    warn!(folder = %done, results = results.len(), "nobody collects results: the oldest are removed");
    for results in results.chunks(AT_ONCE) {
        let paths = results.iter().map(|entry| path_of(done, entry)).collect();
        delete_what_is_there(session, paths).await?;
    }
    Ok(())
}

async fn delete_what_is_there(
    session: &dyn Session,
    mut paths: Vec<ZnodePath>,
) -> Result<(), backend::Error> {
    loop {
        match session.commit(paths.iter().map(|path| Op::delete(path, None)).collect()).await {
            Ok(_) => return Ok(()),
            // Collected meanwhile, or not to be deleted.
            Err(CommitError { index: Some(index), .. }) => drop(paths.remove(index)),
            Err(CommitError { index: None, error }) => return Err(error),
        }
    }
}

/// The znode of an entry that was found in a folder.
pub(crate) fn path_of(folder: &ZnodePath, entry: &Entry) -> ZnodePath {
    folder.join(entry.name()).expect("what is not a name was sorted out")
}

/// Moves what is owned at `path` to where it is to be found after `attempt` deliveries.
pub(crate) fn give_back(
    shared: &Shared,
    path: &ZnodePath,
    entry: &Entry,
    version: i32,
    value: &Value,
    attempt: u32,
) -> Around {
    let is_dead = shared.options.max_attempts.is_some_and(|max| attempt >= max);
    let layout = &shared.layout;
    let folder = if is_dead { &layout.dead } else { &layout.unowned };
    let to = Layout::entry(folder, entry.priority(), entry.label());
    let data = value.given_back(attempt).data();
    let mut before =
        vec![Op::delete(path, Some(version)), Op::create(&to, data, CreateMode::PersistentSequential)];
    if !is_dead {
        before.extend(appeared(layout, entry.label()));
    }
    Around { before, after: Vec::new() }
}

/// Tells those who are about to put something with this label, unless there is any, that there is.
pub(crate) fn appeared(layout: &Layout, label: &str) -> Option<Op> {
    layout.bucket(label).map(|bucket| Op::set(&bucket, [], None))
}
