// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Arguments`]: the arguments of a task, by name.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::message::failure::Failure;

/// The arguments of a task, by name. A [`Handler`](super::Handler) or a closure gets them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Arguments(Map<String, Value>);

/// An argument cannot be written as JSON, is missing, or has another type than the task asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("argument {name:?}: {reason}")]
pub struct ArgumentError {
    name: String,
    reason: String,
}

impl ArgumentError {
    pub(super) fn new(name: &str, reason: impl Into<String>) -> Self {
        ArgumentError { name: name.to_owned(), reason: reason.into() }
    }

    /// The name of the argument.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is wrong with it, for instance `it is missing`.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl Arguments {
    /// The argument `name`. One that is missing is read as `null`, so ask for an `Option` where it may be left out.
    ///
    /// # Errors
    ///
    /// [`ArgumentError`] if it is missing or is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T, ArgumentError> {
        let value = self.0.get(name);
        T::deserialize(value.unwrap_or(&Value::Null)).map_err(|reason| match value {
            Some(_) => ArgumentError::new(name, reason.to_string()),
            None => ArgumentError::new(name, "it is missing"),
        })
    }

    /// All arguments as one value with a field for each.
    ///
    /// # Errors
    ///
    /// The error of serde if they are not a `T`.
    pub fn all_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.0)
    }

    /// All arguments.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl From<Map<String, Value>> for Arguments {
    fn from(arguments: Map<String, Value>) -> Self {
        Arguments(arguments)
    }
}

impl From<ArgumentError> for Failure {
    fn from(error: ArgumentError) -> Self {
        Failure::of(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_that_is_missing_or_of_another_type_is_named() {
        let arguments = Arguments::from(Map::from_iter([("width".to_owned(), "wide".into())]));
        let message = |name| arguments.get::<u32>(name).unwrap_err().to_string();
        assert_eq!(message("height"), r#"argument "height": it is missing"#);
        assert_eq!(message("width"), r#"argument "width": invalid type: string "wide", expected u32"#);
        assert_eq!(arguments.get::<Option<u32>>("height").unwrap(), None);
    }

    #[test]
    fn all_arguments_are_the_fields_of_one_value() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Resize {
            width: u32,
            height: Option<u32>,
        }
        let arguments = Arguments::from(Map::from_iter([("width".to_owned(), 120.into())]));
        assert_eq!(arguments.all_as::<Resize>().unwrap(), Resize { width: 120, height: None });
        assert!(arguments.all_as::<u32>().is_err());
    }
}
