// Pure: no runtime, no clock, no socket, no random numbers.

//! How deeply JSON may be nested.

use serde_json::Value;

/// How many arrays and objects may be nested in a value that is written: a reader of this crate gives up at 128, and the
/// value is inside an object or two.
pub(crate) const MAX_DEPTH: usize = 100;

/// Refuses a value that is nested too deeply to be read by every process. Returns the reason.
pub(crate) fn check_depth(value: &Value) -> Result<(), String> {
    // Level by level, because a recursion of unknown depth could overflow the stack.
    let mut level = vec![value];
    let mut depth = 0;
    while !level.is_empty() {
        let inner = |value: &&Value| value.is_array() || value.is_object();
        if level.iter().any(inner) {
            depth += 1;
        }
        if depth > MAX_DEPTH {
            return Err(format!("it is nested more than {MAX_DEPTH} levels deep"));
        }
        level = level.into_iter().flat_map(children).collect();
    }
    Ok(())
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nested(depth: usize) -> Value {
        (0..depth).fold(Value::Null, |inner, level| match level % 2 {
            0 => json!([1, inner, "x"]),
            _ => json!({ "a": 2, "b": inner }),
        })
    }

    #[test]
    fn what_is_nested_too_deeply_for_a_reader_is_refused() {
        assert_eq!(check_depth(&nested(MAX_DEPTH)), Ok(()));
        assert!(check_depth(&nested(MAX_DEPTH + 1)).is_err());
        for value in [json!(null), json!("x"), json!([]), json!({ "a": [{}] })] {
            assert_eq!(check_depth(&value), Ok(()), "{value}");
        }
        let inside = json!({ "payload": { "result": nested(MAX_DEPTH) } });
        let text = serde_json::to_string(&inside).unwrap();
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "it can be read");
    }
}
