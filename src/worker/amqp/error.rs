//! [`ConnectError`], and the conversion of the errors of the AMQP client.

use lapin::{ErrorKind, types::ShortString};

use crate::worker::transport::TransportError;

/// Why [`AmqpTransport::connect`](super::AmqpTransport::connect) failed. No message contains a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is malformed.
    #[error("invalid AMQP URL, {part}: {problem}")]
    Url {
        /// The part of the URL: scheme, credentials, host, path, fragment or options.
        part: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An exchange cannot have this name.
    #[error("invalid exchange name `{}`: {problem}", .name.escape_debug())]
    Exchange {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The broker does not answer, or refuses the user or the virtual host.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl ConnectError {
    /// Whether trying again later may help, with nothing changed by an operator.
    pub const fn is_transient(&self) -> bool {
        matches!(self, ConnectError::Transport(error) if error.is_transient())
    }
}

/// A short string of AMQP, which has at most 255 bytes.
pub(super) fn short(what: &str, text: impl Into<String>) -> Result<ShortString, TransportError> {
    ShortString::try_new(text)
        .map_err(|_| TransportError::Refused { reason: format!("{what} has more than 255 bytes") })
}

pub(super) const NOT_FOUND: u16 = 404;
/// The answer of RabbitMQ to a deprecated feature that its configuration does not permit, among others.
pub(super) const INTERNAL_ERROR: u16 = 541;

/// The reply code of the broker, if the error came from the broker.
pub(super) fn protocol_error(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// Converts an error of the client into one of the transport.
#[allow(clippy::needless_pass_by_value, reason = "it is for map_err")]
pub(super) fn failed(error: lapin::Error) -> TransportError {
    /// Content too large, access refused, precondition failed (declared with other options), not allowed.
    const FOR_GOOD: [u16; 4] = [311, 403, 406, 530];
    let for_good = protocol_error(&error).is_some_and(|code| FOR_GOOD.contains(&code))
        || matches!(error.kind(), ErrorKind::SerialisationError(_));
    let reason = error.to_string();
    if for_good { TransportError::Refused { reason } } else { TransportError::Unavailable { reason } }
}

/// Converts the error of declaring a queue. The code 541 is final here only: the broker closes the whole connection with
/// it, and other calls on that get the same error.
#[allow(clippy::needless_pass_by_value, reason = "as above")]
pub(super) fn queue_refused(error: lapin::Error) -> TransportError {
    if protocol_error(&error) != Some(INTERNAL_ERROR) {
        return failed(error);
    }
    let reason = format!(
        "{error}; if the broker does not permit such queues, permit them in its configuration \
         (`deprecated_features.permit.transient_nonexcl_queues = true`), or use `queues=durable` in the URL"
    );
    TransportError::Refused { reason }
}
