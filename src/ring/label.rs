// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Label`]: the text that is hashed for the points of a member.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::python;

/// The text that is hashed for the points of a member. All members of a fleet have to use the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Label {
    /// The id itself: `agent-0-0`, `agent-0-1`, ...
    #[default]
    Plain,
    /// The id as Python writes bytes, `b'agent-0'-0`: the label of every aodh fleet on Python 3.
    ///
    /// An aodh agent keeps its id as bytes, and formats it into a text with the quotes. Rings with different labels
    /// agree on keys by chance only, so use this label beside such agents.
    PythonBytes,
    /// The id repeated: twice for the first point, three times for the second, and so on. This is tooz's own ring,
    /// which ceilometer, ironic and others use. Its positions have 128 bits.
    Tooz,
}

/// The text is not the name of a [`Label`]. From parsing one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a label: use `plain`, `python-bytes` or `tooz`")]
pub struct LabelError(String);

impl Label {
    /// The label of the member `id` and a dash, to which the number of a point is appended.
    pub(super) fn stem(self, id: &str) -> Vec<u8> {
        let mut stem = Vec::with_capacity(id.len() + 16);
        match self {
            // The points of a ring of tooz have no stem.
            Label::Plain | Label::Tooz => stem.extend(id.as_bytes()),
            Label::PythonBytes => python::append_repr(&mut stem, id.as_bytes()),
        }
        stem.push(b'-');
        stem
    }
}

/// Writes `plain`, `python-bytes` or `tooz`, as [`Label::from_str`] reads it.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Label::Plain => "plain",
            Label::PythonBytes => "python-bytes",
            Label::Tooz => "tooz",
        })
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(name: &str) -> Result<Self, LabelError> {
        match name {
            "plain" => Ok(Label::Plain),
            "python-bytes" => Ok(Label::PythonBytes),
            "tooz" => Ok(Label::Tooz),
            _ => Err(LabelError(name.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_back_from_its_name() {
        for label in [Label::Plain, Label::PythonBytes, Label::Tooz] {
            assert_eq!(label.to_string().parse(), Ok(label));
        }
        for bad in ["", "Plain", "python_bytes", "python-bytes "] {
            let error = bad.parse::<Label>().unwrap_err();
            let expected = format!("`{bad}` is not a label: use `plain`, `python-bytes` or `tooz`");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn the_stem_is_the_label_and_a_dash() {
        assert_eq!(Label::Plain.stem("agent-0"), b"agent-0-");
        assert_eq!(Label::PythonBytes.stem("agent-0"), b"b'agent-0'-");
        assert_eq!(Label::PythonBytes.stem("é"), br"b'\xc3\xa9'-", "the id is encoded as UTF-8 first");
    }
}
