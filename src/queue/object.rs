// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Object`]: a JSON object that is changed without touching the rest of its text.
//!
//! Reading JSON into values and writing it again changes what another program wrote: numbers that do not fit, keys that
//! occur twice, spaces. So the text of each member is kept.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// See the module documentation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    /// The text up to the first member, and that after the last one.
    open: String,
    members: Vec<Member>,
    close: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Member {
    key: String,
    /// The text before the value: the key, the colon and the spaces around them.
    lead: String,
    value: String,
    /// The spaces after the value.
    trail: String,
}

impl Object {
    /// An object without members.
    pub(super) fn new() -> Self {
        Object { open: "{".into(), members: Vec::new(), close: "}".into() }
    }

    /// Reads the text of an object; `None` if it is anything else.
    pub(super) fn read(text: &str) -> Option<Object> {
        let Members(found) = serde_json::from_str(text).ok()?;
        let open = text.find('{')? + 1;
        let mut members: Vec<Member> = Vec::with_capacity(found.len());
        let mut end = open;
        for (key, value) in found {
            // The value borrows from the text, so its address shows where it is.
            let start = (value.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
            let between = text.get(end..start)?;
            let lead = match members.last_mut() {
                None => between,
                Some(before) => {
                    let (trail, lead) = between.split_once(',')?;
                    before.trail = trail.into();
                    lead
                }
            };
            let (lead, value) = (lead.into(), value.get().to_owned());
            end = start + value.len();
            members.push(Member { key, lead, value, trail: String::new() });
        }
        let rest = text.get(end..)?;
        let close = rest.find('}')?;
        if let Some(last) = members.last_mut() {
            last.trail = rest[..close].into();
        }
        // The spaces in an empty object come before the members that are added.
        let open = if members.is_empty() { end + close } else { open };
        Some(Object { open: text[..open].into(), members, close: rest[close..].into() })
    }

    pub(super) fn text(&self) -> String {
        self.text_of(self.len())
    }

    /// The text with the first `count` members only.
    pub(super) fn text_of(&self, count: usize) -> String {
        let mut text = self.open.clone();
        if let (0, Some(first)) = (count, self.members.first()) {
            // The spaces of an object that was empty.
            let key = first.lead.find('"').unwrap_or(0);
            text.push_str(&first.lead[..key]);
        }
        for (number, member) in self.members.iter().take(count).enumerate() {
            if number > 0 {
                text.push(',');
            }
            for part in [&member.lead, &member.value, &member.trail] {
                text.push_str(part);
            }
        }
        text.push_str(&self.close);
        text
    }

    /// The number of members.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The text of a value among the members from number `from` on. Of several members with this key, it is the last
    /// one, as in Python.
    pub(super) fn get(&self, from: usize, key: &str) -> Option<&str> {
        let members = self.members.get(from..)?;
        members.iter().rfind(|member| member.key == key).map(|member| &*member.value)
    }

    /// Sets a value among the members from number `from` on, or adds it at the end.
    pub(super) fn set(&mut self, from: usize, key: &str, value: String) {
        let members = self.members.get_mut(from..).unwrap_or_default();
        match members.iter_mut().rfind(|member| member.key == key) {
            Some(member) => member.value = value,
            None => {
                let lead = format!("{}:", quoted(key));
                self.members.push(Member { key: key.into(), lead, value, trail: String::new() });
            }
        }
    }

    /// Removes a value from the members from number `from` on.
    pub(super) fn remove(&mut self, from: usize, key: &str) {
        let mut number = 0;
        self.members.retain(|member| {
            number += 1;
            number <= from || member.key != key
        });
    }
}

fn quoted(key: &str) -> String {
    serde_json::Value::from(key).to_string()
}

/// The members of an object, in their order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_to_the_byte_and_changes_are_taken_out_again() {
        for text in [
            "{}",
            " { } \n",
            "{ \"a\" : 1 , \"b\":2}",
            "\t{\"n\": 123456789012345678901234567890, \"n\": 12345678901234567.89, \"e\": 1e999 }\r\n",
            "{\"a\\u0022,\":{\"b\":[\"}\",{}]} ,\"\":\"{,}\" }",
        ] {
            let object = Object::read(text).unwrap();
            assert_eq!(object.text(), text);
            let mut changed = object.clone();
            let from = changed.len();
            changed.set(from, "a", "7".into());
            changed.set(from, "state", "3".into());
            changed.set(from, "state", "4".into());
            assert_eq!((changed.get(from, "a"), changed.get(0, "state")), (Some("7"), Some("4")), "{text}");
            let read = Object::read(&changed.text()).unwrap();
            assert_eq!((read.len(), read.text_of(from)), (from + 2, text.into()));
            changed.remove(from, "a");
            changed.remove(from, "state");
            assert_eq!(changed, object);
        }
        let mut made = Object::new();
        made.set(0, "ä\"", "1".into());
        assert_eq!(made.text(), "{\"ä\\\"\":1}");
    }

    #[test]
    fn anything_else_is_no_object() {
        for text in ["", "[]", "7", "{", "{} x", "{\"a\": NaN}", "{\"a\" 1}", "null"] {
            assert_eq!(Object::read(text), None, "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(Object::read(&deep).unwrap().text(), deep);
    }
}
