//! What an agent did: a file with a line for each action, of one length, which is written again at each check of the
//! guard. So the file is true at each moment, and a killed agent leaves it as it was.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// The length of a line, with its end.
const LINE: u64 = 70;

/// One action on a key, or a part of a long one. Times are those of the host's clock that counts suspend, in
/// nanoseconds: one for all processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Action {
    pub(crate) key: u32,
    /// Just after the guard was valid for the first time.
    pub(crate) start: u64,
    /// Just before the guard was valid for the last time.
    pub(crate) end: u64,
    pub(crate) token: u64,
    pub(crate) state: State,
    /// What the share said.
    pub(crate) is_exclusive: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// It goes on, or its process was killed.
    Running,
    Done,
    /// The guard ended before the work.
    Lost,
}

impl Action {
    fn to_line(self) -> String {
        let state = match self.state {
            State::Running => 'r',
            State::Done => 'd',
            State::Lost => 'l',
        };
        let exclusive = if self.is_exclusive { 'x' } else { '-' };
        let Action { key, start, end, token, .. } = self;
        format!("{key:05} {start:019} {end:019} {token:019} {state} {exclusive}\n")
    }

    /// `None` for a line that was never written.
    fn from_line(line: &[u8]) -> Option<Action> {
        let text = std::str::from_utf8(line).ok()?;
        let mut words = text.split_ascii_whitespace();
        let mut number = || words.next()?.parse::<u64>().ok();
        let (key, start, end, token) = (number()?, number()?, number()?, number()?);
        let state = match words.next()? {
            "r" => State::Running,
            "d" => State::Done,
            "l" => State::Lost,
            _ => return None,
        };
        let is_exclusive = words.next()? == "x";
        Some(Action { key: key.try_into().ok()?, start, end, token, state, is_exclusive })
    }
}

/// The file as its agent writes it.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    end: AtomicU64,
}

/// The place of one action in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(u64);

impl Journal {
    pub(crate) fn create(path: &Path) -> io::Result<Journal> {
        Ok(Journal { file: File::create(path)?, end: AtomicU64::new(0) })
    }

    /// A place for one more action.
    pub(crate) fn place(&self) -> Place {
        Place(self.end.fetch_add(LINE, Ordering::Relaxed))
    }

    pub(crate) fn write(&self, place: Place, action: Action) {
        self.file.write_all_at(action.to_line().as_bytes(), place.0).expect("the journal can be written");
    }
}

/// All actions in a file; the last `most` of them if that is given.
pub(crate) fn read(path: &Path, most: Option<u64>) -> Vec<Action> {
    // It does not exist before its agent runs.
    let Ok(file) = File::open(path) else { return Vec::new() };
    let lines = file.metadata().expect("it is open").len() / LINE;
    let from = most.map_or(0, |most| lines.saturating_sub(most));
    let mut bytes = vec![0; usize::try_from((lines - from) * LINE).expect("it fits")];
    if file.read_exact_at(&mut bytes, from * LINE).is_err() {
        return Vec::new();
    }
    bytes.chunks_exact(usize::try_from(LINE).expect("70 fits")).filter_map(Action::from_line).collect()
}

#[test]
fn a_journal_gives_back_what_was_written_last_at_each_place() {
    let folder = crate::support::files::Folder::new();
    let path = folder.path().join("journal");
    let journal = Journal::create(&path).unwrap();
    let (first, never, last) = (journal.place(), journal.place(), journal.place());
    let action =
        Action { key: 7, start: 1, end: u64::MAX >> 2, token: 9, state: State::Running, is_exclusive: true };
    let other = Action { key: 99_999, state: State::Lost, is_exclusive: false, ..action };
    journal.write(first, other);
    journal.write(last, action);
    journal.write(first, Action { end: 5, ..action });
    let _ = never;
    assert_eq!(read(&path, None), [Action { end: 5, ..action }, action]);
    assert_eq!(read(&path, Some(1)), [action]);
    assert_eq!(other.to_line().len(), action.to_line().len());
    assert_eq!(Action::from_line(other.to_line().as_bytes()), Some(other));
}
