//! The arguments of the command.

use std::time::Duration;

use apportion::{
    MemberId,
    backend::path::ZnodePath,
    board::Priority,
    serde_json::{self, Value},
};
use clap::{Args, Parser, Subcommand};

use crate::{board::Place, queue::Folders, time};

/// Shows groups, job boards and work queues over ZooKeeper, says why a key does not move, and mends what only an operator
/// can mend. It joins no group.
#[derive(Debug, Parser)]
#[command(name = "apportion", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 nothing is wrong; 1 a problem was found and named, or a key waits; 2 wrong \
arguments; 3 no server answers, or the credentials were refused; 4 not done: not found, not permitted, refused, or --yes \
is missing; 5 it may be done, because the reply was lost.";

/// The number of entries at which the services refuse more, if they set no other one.
const MAX_LEN: usize = 20_000;

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The servers and options, as services have them: zookeeper://[user:password@]host[:port],...[?namespace=...].
    /// Without it, the environment variable `APPORTION_URL` counts, which keeps a password out of the list of processes.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The namespace of the groups, instead of that of the URL.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// The settings of a fleet with aodh: namespace `tooz`, ring labels of Python.
    #[arg(long, global = true)]
    pub(crate) aodh: bool,
    /// The settings of a fleet with tooz, such as ceilometer: namespace `tooz`, its ring with so many partitions.
    #[arg(long, global = true, value_name = "PARTITIONS", conflicts_with = "aodh")]
    pub(crate) tooz: Option<u32>,
    /// Prints JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Groups: epochs, members, who waits for whom, and what is wrong. Boards and queues, if they are named.
    Status(Status),
    /// The members of a group: states, parts, processes, sessions.
    Members(Which),
    /// Which member owns these keys.
    Owner(Keys),
    /// Why keys do not move: which member is waited for, why and since when.
    Why(Keys),
    /// Follows a group and prints each change.
    Watch(Watch),
    /// What would move if members came or went: keys are read from standard input, one a line.
    Simulate(Simulate),
    /// A job board.
    Board(Board),
    /// A work queue.
    Queue(Queue),
    /// Looks for what is wrong: servers, clocks, limits, permissions, leftovers.
    Doctor(Doctor),
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The group. Without it, all groups of the namespace; where there can be one only, the only one.
    #[arg(short, long, value_parser = group)]
    pub(crate) group: Option<String>,
}

fn group(name: &str) -> Result<String, String> {
    ZnodePath::root().join(name).map(|_| name.to_owned()).map_err(|error| error.to_string())
}

/// Boards and queues beside the groups.
#[derive(Debug, Args)]
pub(crate) struct Work {
    /// A job board to examine as well. May be repeated.
    #[arg(long, value_name = "PATH", value_parser = Place::parse)]
    pub(crate) board: Vec<Place>,
    /// A work queue to examine as well. May be repeated.
    #[arg(long, value_name = "PATH", value_parser = Folders::parse)]
    pub(crate) queue: Vec<Folders>,
    /// The number of entries at which a board or queue counts as full.
    #[arg(long, value_name = "NUMBER", default_value_t = MAX_LEN)]
    pub(crate) max_len: usize,
}

impl Work {
    pub(crate) fn is_none(&self) -> bool {
        self.board.is_empty() && self.queue.is_empty()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) work: Work,
}

#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The keys, as the services pass them.
    #[arg(required = true, value_name = "KEY")]
    pub(crate) keys: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Ends after this time.
    #[arg(long = "for", value_name = "DURATION", value_parser = time::parse)]
    pub(crate) limit: Option<Duration>,
    /// Ends after so many lines.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) count: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    #[command(flatten)]
    pub(crate) which: Which,
    /// A member that leaves. May be repeated.
    #[arg(long, value_name = "MEMBER")]
    pub(crate) leave: Vec<String>,
    /// A member that joins, with its weight if that is not 1. May be repeated.
    #[arg(long, value_name = "MEMBER[=WEIGHT]", value_parser = newcomer)]
    pub(crate) join: Vec<Newcomer>,
    /// Also prints each key that moves.
    #[arg(long)]
    pub(crate) list: bool,
}

/// A member that joins.
#[derive(Debug, Clone)]
pub(crate) struct Newcomer {
    pub(crate) id: String,
    pub(crate) weight: u32,
}

fn newcomer(text: &str) -> Result<Newcomer, String> {
    let (id, weight) = match text.rsplit_once('=') {
        Some((id, weight)) => (id, weight.parse().unwrap_or(0)),
        None => (text, 1),
    };
    if weight == 0 || id.is_empty() {
        return Err("it is not MEMBER or MEMBER=WEIGHT, with a weight from 1".into());
    }
    let id = MemberId::new(id).map_err(|error| error.to_string())?;
    Ok(Newcomer { id: id.to_string(), weight })
}

#[derive(Debug, Args)]
pub(crate) struct Board {
    /// The path of the board.
    #[arg(
        long = "board",
        global = true,
        value_name = "PATH",
        default_value = "/taskflow/jobs",
        value_parser = Place::parse
    )]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: BoardCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BoardCommand {
    /// The jobs, in the order in which they are claimed.
    List {
        /// Those that no worker has claimed.
        #[arg(long)]
        unclaimed: bool,
        /// The jobs in the trash.
        #[arg(long, conflicts_with = "unclaimed")]
        trash: bool,
        /// The number of jobs at which the board counts as full.
        #[arg(long, value_name = "NUMBER", default_value_t = MAX_LEN)]
        max_len: usize,
    },
    /// All that is known of one job.
    Show {
        /// Its number, name of its znode, or uuid.
        job: String,
    },
    /// Claims a job. With a command, runs it: if it succeeds, the job is done; if not, it is given back with the reason.
    /// Without one, keeps the job from workers until it is interrupted, and gives it back.
    Claim {
        /// Its number, name of its znode, or uuid.
        job: String,
        /// What to run. It gets the details on standard input, and `APPORTION_JOB` and `APPORTION_TOKEN` in its environment.
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Ends the claim of another process, or a lock without a session, so that the job can be claimed again.
    Abandon {
        /// Its number, name of its znode, or uuid.
        job: String,
        #[command(flatten)]
        yes: Yes,
    },
    /// Moves a job to the trash.
    Trash {
        /// Its number, name of its znode, or uuid.
        job: String,
        /// Why.
        #[arg(long, value_name = "REASON")]
        because: Option<String>,
        #[command(flatten)]
        yes: Yes,
    },
    /// Moves a job from the trash back to the board, as a new job with the same posting.
    Restore {
        /// The name of its znode in the trash, or its uuid.
        job: String,
        #[command(flatten)]
        yes: Yes,
    },
    /// Posts a job.
    Post {
        /// Its name, which says which handler does it.
        name: String,
        /// A JSON object.
        #[arg(long, value_name = "JSON", default_value = "{}", value_parser = json)]
        details: Value,
        /// `VERY_HIGH`, `HIGH`, `NORMAL`, `LOW` or `VERY_LOW`.
        #[arg(long, default_value = "NORMAL", value_parser = priority)]
        priority: Priority,
        /// Not to be claimed before this time has passed.
        #[arg(long, value_name = "DURATION", value_parser = time::parse)]
        delay: Option<Duration>,
        /// Creates the board if there is none.
        #[arg(long)]
        create: bool,
    },
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("it is no JSON: {error}. A text has quotes: '\"text\"'"))
}

fn priority(text: &str) -> Result<Priority, String> {
    text.parse().map_err(|_| "it is none of VERY_HIGH, HIGH, NORMAL, LOW, VERY_LOW".into())
}

#[derive(Debug, Args)]
pub(crate) struct Queue {
    /// The path of the queue.
    #[arg(
        long = "queue",
        global = true,
        value_name = "PATH",
        default_value = "/queue",
        value_parser = Folders::parse
    )]
    pub(crate) folders: Folders,
    #[command(subcommand)]
    pub(crate) command: QueueCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// The entries that wait, in the order in which they are taken.
    List {
        /// Those that workers have taken.
        #[arg(long)]
        owned: bool,
        /// The results.
        #[arg(long, conflicts_with = "owned")]
        done: bool,
        /// The number of waiting entries at which the services refuse more.
        #[arg(long, value_name = "NUMBER", default_value_t = MAX_LEN)]
        max_len: usize,
    },
    /// All that is known of one entry.
    Show {
        /// The name of its znode, in whatever folder, or the id that its put has returned.
        entry: String,
    },
    /// Puts an entry.
    Put {
        /// The payload, as JSON.
        #[arg(value_parser = json)]
        payload: Value,
        /// From 0 to 999; the highest is taken first.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=999))]
        priority: u16,
        /// The label.
        #[arg(long, default_value = "")]
        label: String,
        /// Not to be taken before this time has passed.
        #[arg(long, value_name = "DURATION", value_parser = time::parse)]
        delay: Option<Duration>,
        /// Creates the queue if there is none.
        #[arg(long)]
        create: bool,
        /// The number of waiting entries at which it is refused.
        #[arg(long, value_name = "NUMBER", default_value_t = MAX_LEN)]
        max_len: usize,
    },
    /// The dead letters, with their reasons.
    Dead,
    /// Puts dead letters back into the queue.
    Revive {
        #[command(flatten)]
        letters: Letters,
    },
    /// Removes dead letters for good.
    Discard {
        #[command(flatten)]
        letters: Letters,
        #[command(flatten)]
        yes: Yes,
    },
}

#[derive(Debug, Args)]
#[group(required = true)]
pub(crate) struct Letters {
    /// The names of the dead letters.
    #[arg(value_name = "ENTRY", group = "letters")]
    pub(crate) entries: Vec<String>,
    /// All of them.
    #[arg(long, conflicts_with = "entries", group = "letters")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Yes {
    /// Does it. Without this, the command says what it would do.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) work: Work,
    /// Does not compare the clocks, for which a znode is created and deleted in one transaction, and does not try out what
    /// this user may write.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Writes nothing to the terminal but the problems.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}
