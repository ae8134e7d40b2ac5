// Pure: no runtime, no clock, no socket, no random numbers.

//! Converts the values of the client crate, and computes the size of requests.

use zookeeper_client as zk;

use super::super::{CommitError, CreateMode, Done, Error, Loss, Op, SessionId, Stat, path::ZnodePath};

/// Converts the error of a request.
///
/// D2: when a connection breaks, pending requests of the crate fail with `ConnectionLoss` (end of stream), `Custom`
/// (reset, no reply) or `UnexpectedError`. Only a reply of a server counts as a refusal; after any other error the
/// outcome is unknown.
pub(super) fn error(error: &zk::Error) -> Error {
    use zk::Error as E;
    match error {
        E::NoNode => Error::NoNode,
        E::NodeExists => Error::NodeExists,
        E::BadVersion => Error::BadVersion,
        E::NotEmpty => Error::NotEmpty,
        E::NoChildrenForEphemerals => Error::EphemeralParent,
        E::NoAuth => Error::NotPermitted,
        E::SessionExpired => Error::Lost(Loss::Expired),
        E::ClientClosed => Error::Lost(Loss::Closed),
        E::AuthFailed => Error::Lost(Loss::AuthFailed),
        E::BadArguments(_)
        | E::InvalidAcl
        | E::NoWatcher
        | E::QuotaExceeded
        | E::MarshallingError
        | E::Unimplemented
        | E::ReconfigDisabled
        | E::UnexpectedErrorCode(_) => Error::Other(error.to_string()),
        // Some of these are refusals, too, but only by this server at this moment (`SessionMoved`, `NotReadOnly`,
        // `Throttled`): the caller has to read back, as after a lost reply.
        _ => Error::Unknown(error.to_string()),
    }
}

pub(super) fn commit_error(failure: zk::MultiWriteError) -> CommitError {
    match failure {
        zk::MultiWriteError::OperationFailed { index, source } => {
            CommitError { index: Some(index), error: error(&source) }
        }
        zk::MultiWriteError::RequestFailed { source } => error(&source).into(),
    }
}

pub(super) fn done(result: zk::MultiWriteResult) -> Result<Done, Error> {
    match result {
        zk::MultiWriteResult::Check => Ok(Done::Checked),
        zk::MultiWriteResult::Delete => Ok(Done::Deleted),
        // Its stat is invalid on servers before 3.8.2 (ZOOKEEPER-4026).
        zk::MultiWriteResult::Create { path, .. } => ZnodePath::parse(&path)
            .map(Done::Created)
            .map_err(|error| Error::Unknown(format!("the server created a path that it refuses: {error}"))),
        zk::MultiWriteResult::SetData { stat: set } => Ok(Done::Set(stat(&set))),
        other => Err(Error::Unknown(format!("a reply to another request: {other:?}"))),
    }
}

pub(super) fn stat(stat: &zk::Stat) -> Stat {
    Stat {
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        pzxid: stat.pzxid,
        version: stat.version,
        cversion: stat.cversion,
        ephemeral_owner: (stat.ephemeral_owner != 0).then_some(SessionId(stat.ephemeral_owner)),
        data_length: stat.data_length,
        num_children: stat.num_children,
        created_ms: stat.ctime,
        modified_ms: stat.mtime,
    }
}

pub(super) fn mode(mode: CreateMode) -> zk::CreateMode {
    match mode {
        CreateMode::Persistent => zk::CreateMode::Persistent,
        CreateMode::PersistentSequential => zk::CreateMode::PersistentSequential,
        CreateMode::Ephemeral => zk::CreateMode::Ephemeral,
        CreateMode::EphemeralSequential => zk::CreateMode::EphemeralSequential,
    }
}

/// The size of the request for a transaction, in bytes.
pub(super) fn commit_bytes(ops: &[Op], acls: &[zk::Acl]) -> usize {
    const REQUEST_HEADER: usize = 8;
    const OP_HEADER: usize = 9;
    const INT: usize = 4;
    let acls: usize = acls.iter().map(|acl| 3 * INT + acl.scheme().len() + acl.id().len()).sum();
    let body = |op: &Op| match op {
        Op::Create { data, .. } => INT + data.len() + INT + acls + INT,
        Op::Set { data, .. } => INT + data.len() + INT,
        Op::Check { .. } | Op::Delete { .. } => INT,
    };
    let ops: usize = ops.iter().map(|op| OP_HEADER + INT + op.path().as_str().len() + body(op)).sum();
    REQUEST_HEADER + ops + OP_HEADER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_server_answered_counts_as_refused() {
        for refused in [zk::Error::NoNode, zk::Error::NodeExists, zk::Error::BadVersion, zk::Error::NoAuth] {
            assert!(!error(&refused).is_unknown(), "{refused}");
        }
        for unknown in [
            zk::Error::ConnectionLoss,
            zk::Error::Timeout,
            zk::Error::UnexpectedError("the session task is gone".into()),
            zk::Error::SessionMoved,
        ] {
            assert!(matches!(error(&unknown), Error::Unknown(_)), "{unknown}");
        }
        assert_eq!(error(&zk::Error::SessionExpired), Error::Lost(Loss::Expired));
    }
}
