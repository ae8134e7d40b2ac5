//! All metrics.

use super::{
    Kind::{Counter, Gauge, Histogram},
    Metric,
};

/// Declares the metrics, and the list of them.
macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal in $unit:literal by [$($label:literal),*]: $help:literal;)*) => {
        $(pub(crate) const $constant: Metric = Metric::new($name, $kind, $unit, &[$($label),*], $help);)*
        /// All metrics, in the order of the documentation.
        pub const METRICS: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    SESSION_STATE = Gauge "apportion_session_state" in "" by ["state"]:
        "1 for the present state of the session, else 0";
    SESSION_VALID_UNTIL = Gauge "apportion_session_valid_until_timestamp_seconds" in "seconds" by []:
        "until when this process may act if no further heartbeat is confirmed, in seconds since 1970";
    SESSIONS_OPENED = Counter "apportion_sessions_opened_total" in "" by []:
        "sessions that were opened";
    SESSIONS_LOST = Counter "apportion_sessions_lost_total" in "" by ["reason"]:
        "sessions that were lost";
    SESSION_LAPSES = Counter "apportion_session_lapses_total" in "" by []:
        "how often no heartbeat was confirmed in time, so that shares and leases were not valid";
    HEARTBEAT_DURATION = Histogram "apportion_heartbeat_duration_seconds" in "seconds" by ["sender"]:
        "from sending a heartbeat that is confirmed to its confirmation";
    STORE_REQUESTS = Counter "apportion_store_requests_total" in "" by ["kind", "outcome"]:
        "requests to the store";
    STORE_REQUEST_DURATION = Histogram "apportion_store_request_duration_seconds" in "seconds" by ["kind"]:
        "how long a request to the store took, with any outcome";
    GROUP_STANDING = Gauge "apportion_group_standing" in "" by ["group", "standing"]:
        "1 for the present standing of this member, else 0";
    GROUP_MEMBERS = Gauge "apportion_group_members" in "" by ["group"]:
        "members of the group, as this member knows it";
    GROUP_EPOCH = Gauge "apportion_group_epoch" in "" by ["group"]:
        "the generation of the membership that this member follows";
    GROUP_OWNED = Gauge "apportion_group_owned_ratio" in "ratio" by ["group"]:
        "the part of all keys that this member owns";
    GROUP_STARTABLE = Gauge "apportion_group_startable_ratio" in "ratio" by ["group"]:
        "the part of all keys that this member may start to work on";
    GROUP_ITEMS = Gauge "apportion_group_items_in_progress" in "" by ["group"]:
        "items of shares that are in progress";
    GROUP_KEPT = Gauge "apportion_group_kept_ranges" in "" by ["group"]:
        "ranges of keys that this member has lost and still works on";
    GROUP_WAITING = Gauge "apportion_group_waiting_members" in "" by ["group", "reason"]:
        "other members that this member waits for";
    GROUP_PAUSED = Gauge "apportion_group_paused" in "" by ["group"]:
        "1 while an operator has paused the group, else 0";
    GROUP_JOINS = Counter "apportion_group_joins_total" in "" by ["group"]:
        "how often this member has joined; all but the first are rejoins";
    GROUP_CHANGES = Counter "apportion_group_changes_total" in "" by ["group"]:
        "changes of the membership that this member has followed";
    GROUP_HANDOVER_DURATION = Histogram "apportion_group_handover_duration_seconds" in "seconds" by ["group", "type"]:
        "from the cause of a handover, as this member knows it, until it may start on every key that it owns";
    BOARD_JOBS = Gauge "apportion_board_jobs" in "" by ["board", "state"]:
        "jobs on the board by the last listing of this process";
    BOARD_POSTED = Counter "apportion_board_posted_total" in "" by ["board"]:
        "jobs that this process has posted";
    BOARD_CLAIMS = Counter "apportion_board_claims_total" in "" by ["board", "outcome"]:
        "attempts of this process to claim a job";
    BOARD_REPEATED = Counter "apportion_board_repeated_claims_total" in "" by ["board"]:
        "claims of a job that was attempted before";
    BOARD_CLAIM_DURATION = Histogram "apportion_board_claim_duration_seconds" in "seconds" by ["board"]:
        "how long an attempt to claim a job took at the store";
    BOARD_ENDED = Counter "apportion_board_ended_total" in "" by ["board", "outcome"]:
        "claims of this process that have ended";
    BOARD_HELD_DURATION = Histogram "apportion_board_held_seconds" in "seconds" by ["board", "outcome"]:
        "from a claim to its end";
    QUEUE_ENTRIES = Gauge "apportion_queue_entries" in "" by ["queue", "state"]:
        "entries that wait by the last listing of this process";
    QUEUE_PUT = Counter "apportion_queue_put_total" in "" by ["queue"]:
        "entries that this process has put";
    QUEUE_TAKES = Counter "apportion_queue_takes_total" in "" by ["queue", "outcome"]:
        "attempts of this process to take an entry";
    QUEUE_REPEATED = Counter "apportion_queue_repeated_takes_total" in "" by ["queue"]:
        "deliveries of an entry that was delivered before";
    QUEUE_TAKE_DURATION = Histogram "apportion_queue_take_duration_seconds" in "seconds" by ["queue"]:
        "how long it took at the store to take the entries of one call";
    QUEUE_ENDED = Counter "apportion_queue_ended_total" in "" by ["queue", "outcome"]:
        "deliveries of this process that have ended, and entries of gone workers that it has made dead letters";
    QUEUE_HELD_DURATION = Histogram "apportion_queue_held_seconds" in "seconds" by ["queue", "outcome"]:
        "from a delivery to its end";
    QUEUE_RECOVERED = Counter "apportion_queue_recovered_total" in "" by ["queue"]:
        "entries of workers that are gone, which this process has given back";
    RUNNER_TASKS = Gauge "apportion_runner_tasks" in "" by ["group"]:
        "tasks of `run_each` that have not ended";
    RUNNER_TASKS_ENDED = Counter "apportion_runner_tasks_ended_total" in "" by ["group", "outcome"]:
        "tasks of `run_each` that have ended, restarts included";
    RUNNER_HANDLERS = Gauge "apportion_runner_handlers" in "" by ["path"]:
        "handlers of a runner of a board or queue that have not ended";
    RUNNER_ATTEMPTS = Counter "apportion_runner_attempts_total" in "" by ["path", "outcome"]:
        "attempts of a runner at a job or an entry that have ended";
    EXECUTOR_OPEN = Gauge "apportion_executor_open_requests" in "" by ["state"]:
        "open requests of the executor, counted every second";
    EXECUTOR_ENDED = Counter "apportion_executor_requests_total" in "" by ["outcome"]:
        "requests of the executor that have ended";
    EXECUTOR_QUEUE_DURATION = Histogram "apportion_executor_queue_seconds" in "seconds" by []:
        "from the submission of a request to the report that a worker runs it";
    EXECUTOR_RUN_DURATION = Histogram "apportion_executor_run_seconds" in "seconds" by []:
        "from that report to the end of the request";
    WORKER_OPEN = Gauge "apportion_worker_open_requests" in "" by ["topic", "state"]:
        "requests at the worker";
    WORKER_ENDED = Counter "apportion_worker_requests_total" in "" by ["topic", "task", "outcome"]:
        "requests that the worker has run";
    WORKER_QUEUE_DURATION = Histogram "apportion_worker_queue_seconds" in "seconds" by ["topic", "task"]:
        "how long a request has waited at the worker";
    WORKER_RUN_DURATION = Histogram "apportion_worker_run_seconds" in "seconds" by ["topic", "task"]:
        "how long a request has run";
}
