//! What a queue has in the store.

use apportion::{
    backend::{Stat, path::ZnodePath},
    queue::Entry,
    serde_json::{self, Value, json},
};

use super::Folders;
use crate::{
    failure::Failure,
    findings::Finding,
    state::State,
    store::Store,
    time::{age, from_ms, now, short},
    work,
};

/// A znode in a folder of entries.
pub(super) struct Row {
    pub(super) path: ZnodePath,
    /// `None` if its name is not that of an entry.
    pub(super) entry: Option<Entry>,
    stat: Option<Stat>,
    pub(super) value: Option<Value>,
    pub(super) state: State,
    /// Why it is set aside.
    aside: Option<&'static str>,
}

impl Row {
    pub(super) fn name(&self) -> &str {
        self.path.name()
    }

    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        self.value.as_ref()?.get(name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        match self.field(name) {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    pub(super) fn age(&self) -> String {
        self.stat.map_or_else(|| "?".into(), |stat| short(age(from_ms(stat.created_ms))))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "entry": self.name(),
            "path": self.path.as_str(),
            "state": self.state.as_str(),
            "priority": self.entry.as_ref().map(Entry::priority),
            "label": self.entry.as_ref().map(Entry::label),
            "created_ms": self.stat.map(|stat| stat.created_ms),
            "attempts": self.field("attempt"),
            "worker": self.field("worker"),
            "claim": self.field("claim"),
            "not_before_ms": self.field("not_before"),
            "last_error": self.field("last_error"),
            "set_aside": self.aside,
        })
    }

    pub(super) fn finding(&self) -> Option<Finding> {
        Some(work::set_aside_entry(&self.path, self.aside?))
    }
}

/// How many entries are shown whose values are read.
const SHOWN: usize = 1000;

/// The names in a folder, those of entries in their order, then the others.
pub(super) async fn names(
    store: &Store,
    folders: &Folders,
    folder: &ZnodePath,
) -> Result<Vec<String>, Failure> {
    let Some((names, _)) = store.children(folder).await? else {
        if store.get(&folders.unowned).await?.is_some() {
            // A queue that Python alone uses has no such folder.
            return Ok(Vec::new());
        }
        return Err(Failure::NotDone(format!(
            "there is no queue `{}`: name it with --queue. `queue put --create` makes one",
            folders.root
        )));
    };
    let mut named: Vec<(Option<Entry>, String)> =
        names.into_iter().map(|name| (name.parse().ok(), name)).collect();
    named
        .sort_unstable_by(|(a, a_name), (b, b_name)| (a.is_none(), a, a_name).cmp(&(b.is_none(), b, b_name)));
    Ok(named.into_iter().map(|(_, name)| name).collect())
}

/// Those of these names that are in the folder.
pub(super) async fn read(
    store: &Store,
    folders: &Folders,
    folder: &ZnodePath,
    names: &[String],
) -> Result<Vec<Row>, Failure> {
    let paths: Vec<_> = names.iter().filter_map(|name| folder.join(name).ok()).collect();
    let found = store.read(&paths).await?;
    let rows = paths.into_iter().zip(found).filter_map(|(path, found)| {
        let entry: Option<Entry> = path.name().parse().ok();
        let (stat, value, unread) = match found {
            Ok(None) => return None,
            Ok(Some((data, stat))) => {
                let value: Option<Value> = serde_json::from_slice(&data).ok();
                let unread = value.is_none().then_some("its value is no JSON");
                (Some(stat), value, unread)
            }
            Err(()) => (None, None, Some("permission to read it is denied by its ACL")),
        };
        let aside = if entry.is_none() { Some("its name is not that of an entry") } else { unread };
        let is_delayed = value
            .as_ref()
            .and_then(|value| value.get("not_before")?.as_i64())
            .is_some_and(|then| from_ms(then) > now());
        let state = match folders.state(folder) {
            _ if aside.is_some() => State::SetAside,
            State::Waits if is_delayed => State::Delayed,
            state => state,
        };
        Some(Row { path, entry, stat, value, state, aside })
    });
    Ok(rows.collect())
}

/// The first entries of a folder, and how many znodes there are.
pub(super) async fn first(
    store: &Store,
    folders: &Folders,
    folder: &ZnodePath,
) -> Result<(Vec<Row>, usize), Failure> {
    let names = names(store, folders, folder).await?;
    // Those that are no entries come last, and are no fewer for that.
    let shown = &names[..names.len().min(SHOWN)];
    Ok((read(store, folders, folder, shown).await?, names.len()))
}

/// The entry of a folder whose value has this id, or which has the name that was asked for. All may have to be read, but
/// few are kept at a time.
pub(super) async fn with_id(
    store: &Store,
    folders: &Folders,
    folder: &ZnodePath,
    wanted: &str,
    id: &str,
) -> Result<Option<Row>, Failure> {
    for some in names(store, folders, folder).await?.chunks(SHOWN) {
        let rows = read(store, folders, folder, some).await?;
        let is_it = |row: &Row| row.name() == wanted || row.text("id") == id;
        if let Some(row) = rows.into_iter().find(is_it) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}
