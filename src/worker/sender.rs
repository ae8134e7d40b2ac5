// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Sender`]: the name of a process of this crate in its messages.

use std::fmt;

/// The sender of a message: the name of an executor or worker, and how often it has consumed its topic again.
///
/// The text is the name, and `/` with the number behind it once that is not zero. So a peer notices that messages to
/// the process may be lost: the queue of a topic ends with its last consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) name: String,
    /// How many connections of it have ended.
    pub(super) connections: u64,
}

impl Sender {
    pub(super) fn parse(text: &str) -> Self {
        let numbered = text.rsplit_once('/').and_then(|(name, number)| Some((name, number.parse().ok()?)));
        let (name, connections) = numbered.unwrap_or((text, 0));
        Sender { name: name.to_owned(), connections }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.connections {
            0 => f.write_str(&self.name),
            number => write!(f, "{}/{number}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_its_name_until_it_has_consumed_again() {
        for (text, name, connections) in [("a", "a", 0), ("a/3", "a", 3), ("a/b", "a/b", 0), ("", "", 0)] {
            let sender = Sender { name: name.into(), connections };
            assert_eq!(Sender::parse(text), sender);
            assert_eq!(sender.to_string(), text);
        }
    }
}
