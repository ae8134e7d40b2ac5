// Pure: no runtime, no clock, no socket, no random numbers.

//! The paths of a board, and the order of its jobs.

use std::cmp::Reverse;

use super::posting::Priority;
use crate::backend::path::{PathError, ZnodePath};

/// Why a path cannot be that of a board.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BoardPathError {
    /// It is not the path of a znode. A slash at the end is not allowed either.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It is the root. A board needs a parent, because the trash and the entities are beside the board.
    #[error("it is the root, and a board needs a parent")]
    Root,
    /// The last name occurs more than once in the path. TaskFlow gets the path of the trash by replacing each
    /// occurrence of that name, so it would use another trash.
    #[error("its last name, `{0}`, occurs in it more than once")]
    Repeated(String),
}

/// The znodes of one board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The board itself, the parent of jobs and locks.
    pub(crate) board: ZnodePath,
    /// The parent of jobs that were given up for good.
    pub(crate) trash: ZnodePath,
    /// The parent of the kinds of registered entities.
    pub(crate) entities: ZnodePath,
    /// The parent of receipts, which show that a post was applied. Not known to TaskFlow.
    pub(crate) posting: ZnodePath,
    /// The parent of the records of attempts. Not known to TaskFlow.
    pub(crate) attempts: ZnodePath,
    /// The path of new jobs without their number, which the server appends.
    pub(crate) job: ZnodePath,
}

impl Layout {
    pub(crate) fn new(path: &str) -> Result<Self, BoardPathError> {
        let board = ZnodePath::parse(path)?;
        let parent = board.parent().ok_or(BoardPathError::Root)?;
        if path.matches(board.name()).count() != 1 {
            return Err(BoardPathError::Repeated(board.name().into()));
        }
        Ok(Layout {
            trash: parent.join(".trash")?,
            entities: parent.join(".entities")?,
            posting: parent.join(".posting")?,
            attempts: parent.join(".attempts")?,
            job: board.join("job")?,
            board,
        })
    }
}

impl Layout {
    /// The record of the attempts at a job. Its name has the creation of the job, because a name may belong to another job
    /// later, and the name of the board, because boards with the same parent share the folder.
    pub(crate) fn record_of(&self, job: &str, czxid: i64) -> ZnodePath {
        let record = format!("{}.{}", self.board.name(), with_creation(job, czxid));
        self.attempts.join(&record).expect("it has the characters of two names")
    }

    /// Where a job goes that is given up for good. TaskFlow uses its name. A name that is `taken` there is that of another
    /// job, for instance of a board with the same parent: then its creation follows, as in the name of its record.
    pub(crate) fn trash_of(&self, job: &str, czxid: i64, is_taken: bool) -> ZnodePath {
        let name = if is_taken { with_creation(job, czxid) } else { job.into() };
        self.trash.join(&name).expect("it has the characters of a name")
    }

    /// The name of the job and its creation, of a record of this board.
    pub(crate) fn recorded<'a>(&self, record: &'a str) -> Option<(&'a str, i64)> {
        let (job, czxid) = record.strip_prefix(self.board.name())?.strip_prefix('.')?.rsplit_once('.')?;
        Some((job, i64::from_str_radix(czxid, 16).ok()?)).filter(|_| Child::of(job) == Child::Job)
    }
}

/// A name for a job that no other one has. No board creates a job with such a name: there is more than a number.
fn with_creation(job: &str, czxid: i64) -> String {
    format!("{job}.{czxid:x}")
}

/// The kind of a child of a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Child<'a> {
    Job,
    /// The lock of the job of this name.
    Lock(&'a str),
    /// It starts like a job and has no number: TaskFlow fails on it.
    InvalidName,
    Foreign,
}

/// The end of the name of a lock.
const LOCK: &str = ".lock";

impl<'a> Child<'a> {
    pub(crate) fn of(name: &'a str) -> Self {
        let Some(number) = name.strip_prefix("job") else { return Child::Foreign };
        if let Some(job) = name.strip_suffix(LOCK) {
            return Child::Lock(job);
        }
        if is_python_int(number) { Child::Job } else { Child::InvalidName }
    }
}

/// The lock of a job.
pub(crate) fn lock_of(job: &ZnodePath) -> Result<ZnodePath, PathError> {
    ZnodePath::parse(&format!("{job}{LOCK}"))
}

/// Whether Python's `int()` accepts it: that is how TaskFlow recognises jobs.
fn is_python_int(text: &str) -> bool {
    /// Python refuses more since 3.11, because the conversion would take too long.
    const MOST_DIGITS: usize = 4300;
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = digits.split('_');
    parts.all(|part| !part.is_empty() && part.chars().all(is_decimal))
        && digits.chars().filter(|c| *c != '_').count() <= MOST_DIGITS
}

/// The zeros of all scripts in the Basic Multilingual Plane, in which names of znodes end (Unicode 14, as Python
/// 3.11). The other nine digits of a script follow its zero.
const ZEROS: [u16; 37] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50,
    0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40,
    0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];

fn is_decimal(c: char) -> bool {
    u16::try_from(u32::from(c)).is_ok_and(|c| ZEROS.iter().any(|zero| (*zero..zero + 10).contains(&c)))
}

/// The place of a job in the order of a board: the highest priority first, the oldest first within one.
///
/// The age is that of the znode, not its number, which becomes negative after 2147483647.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) priority: Reverse<Priority>,
    pub(crate) czxid: i64,
    pub(crate) name: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trash_and_entities_are_beside_the_board() {
        let layout = Layout::new("/taskflow/jobs").unwrap();
        let beside = [layout.trash, layout.entities, layout.posting, layout.job].map(|it| it.to_string());
        assert_eq!(
            beside,
            ["/taskflow/.trash", "/taskflow/.entities", "/taskflow/.posting", "/taskflow/jobs/job"]
        );
        assert_eq!(Layout::new("/jobs").unwrap().trash.as_str(), "/.trash");
    }

    #[test]
    fn the_record_of_a_job_is_found_by_its_name_and_creation() {
        let layout = Layout::new("/taskflow/jobs").unwrap();
        let record = layout.record_of("job0000000042", 0x1f);
        assert_eq!(record.as_str(), "/taskflow/.attempts/jobs.job0000000042.1f");
        assert_eq!(layout.recorded(record.name()), Some(("job0000000042", 0x1f)));
        for other in ["jobs2.job1.1f", "job1.1f", "jobs.job1", "jobs.job1.x", "jobs..1f", "jobs.jobx.1f"] {
            assert_eq!(layout.recorded(other), None, "{other}");
        }
    }

    #[test]
    fn a_path_whose_trash_taskflow_would_place_elsewhere_is_refused() {
        for path in ["/jobs/jobs", "/aa/a", "/a/b/a", "/my-jobs/jobs", "/ababa/aba"] {
            let refused = Layout::new(path);
            assert!(matches!(refused, Err(BoardPathError::Repeated(_))), "{path}: {refused:?}");
        }
        for path in ["/aa", "/a/aa", "/jobs/job"] {
            let refused = Layout::new(path);
            assert_eq!(refused.is_ok(), path != "/jobs/job", "{path}: {refused:?}");
        }
        assert_eq!(Layout::new("/"), Err(BoardPathError::Root));
        for path in ["", "jobs", "/a/jobs/", "//jobs", "/a/.."] {
            assert!(matches!(Layout::new(path), Err(BoardPathError::Path(_))), "{path}");
        }
    }

    #[test]
    fn children_are_jobs_if_pythons_int_takes_what_follows() {
        // As Python 3.11 answers.
        for name in [
            "job0000000012",
            "job12",
            "job-0000000001",
            "job+5",
            "job 7",
            "job7 ",
            "job1_0",
            "job١٢",
            "job๓",
            "job\u{a0}7",
            "job\u{3000}7",
            "job00",
            "job-2147483648",
            "job１",
        ] {
            assert_eq!(Child::of(name), Child::Job, "{name}");
        }
        for name in [
            "job",
            "jobs",
            "job-x",
            "job--1",
            "job+-1",
            "job1__0",
            "job_1",
            "job1_",
            "job1.0",
            "job0x1",
            "job1e3",
            "job- 1",
            "job²",
            "job½",
            "job三",
            "job\u{200b}7",
            "job7.lock2",
            "job1 2",
        ] {
            assert_eq!(Child::of(name), Child::InvalidName, "{name}");
        }
        assert_eq!(Child::of(&format!("job{}", "1".repeat(4301))), Child::InvalidName);
        assert_eq!(Child::of(&format!("job{}", "1".repeat(4300))), Child::Job);
        assert_eq!(Child::of("job0000000012.lock"), Child::Lock("job0000000012"));
        for name in ["Job1", "ajob1", "", "1", "lock.job1.lock"] {
            assert_eq!(Child::of(name), Child::Foreign, "{name}");
        }
    }

    #[test]
    fn the_highest_priority_comes_first_and_the_oldest_within_one() {
        let place =
            |priority, czxid, name: &str| Place { priority: Reverse(priority), czxid, name: name.into() };
        let mut places = [
            place(Priority::Low, 1, "job0000000000"),
            place(Priority::High, 9, "job-2147483648"),
            place(Priority::High, 8, "job2147483647"),
            place(Priority::VeryHigh, 10, "job-2147483647"),
        ];
        places.sort();
        let names: Vec<_> = places.iter().map(|place| &*place.name).collect();
        assert_eq!(names, ["job-2147483647", "job2147483647", "job-2147483648", "job0000000000"]);
    }
}
