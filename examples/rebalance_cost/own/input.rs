//! Reads files of keys and members. Errors have the file and the line.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use apportion::{
    HashRing,
    ring::{HashRingBuilder, RingError},
};

use crate::support::without_mark;

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("{}: {source}", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("{}, line {line}: not UTF-8", file.display())]
    NotUtf8 { file: PathBuf, line: usize },
    #[error("{}: the text is UTF-16; save it as UTF-8", file.display())]
    Utf16 { file: PathBuf },
    #[error("{}: there is no {what} in it; each has a line of its own", file.display())]
    Empty { file: PathBuf, what: &'static str },
    #[error("{}, line {line}: {source}", file.display())]
    BadMember { file: PathBuf, line: usize, source: MemberError },
    #[error("`{}` cannot leave, it is not in {}", member.escape_debug(), file.display())]
    UnknownLeaver { member: String, file: PathBuf },
    #[error(
        "`{}` cannot join, it is there already; with --leave as well it returns, even with another weight",
        member.escape_debug()
    )]
    AlreadyThere { member: String },
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// Why a text is not a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    #[error("the id of the member is missing")]
    NoId,
    #[error("the weight of `{}` has to be a whole number above zero, `{weight}` is not", id.escape_debug())]
    BadWeight { id: String, weight: String },
}

/// A member as `host-1` or, with a weight, `host-1 3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: String,
    pub weight: u32,
}

impl FromStr for Entry {
    type Err = MemberError;

    fn from_str(text: &str) -> Result<Entry, MemberError> {
        let text = text.trim();
        let Some((id, weight)) = text.rsplit_once(char::is_whitespace) else {
            return if text.is_empty() {
                Err(MemberError::NoId)
            } else {
                Ok(Entry { id: text.into(), weight: 1 })
            };
        };
        let id = id.trim_end().to_string();
        match weight.parse() {
            Ok(weight) if weight > 0 => Ok(Entry { id, weight }),
            _ => Err(MemberError::BadWeight { id, weight: weight.into() }),
        }
    }
}

/// The keys of a file, in its order.
#[derive(Debug)]
pub struct Keys {
    pub all: Vec<String>,
    /// How many keys are repeated. They are kept, because two alarms may have the same key.
    pub repeated: usize,
    pub empty_lines: usize,
}

impl Keys {
    pub fn read(file: &Path) -> Result<Keys, InputError> {
        let text = read(file)?;
        let all: Vec<String> = lines(&text).filter(|line| !line.is_empty()).map(Into::into).collect();
        if all.is_empty() {
            return Err(InputError::Empty { file: file.into(), what: "key" });
        }
        let distinct: HashSet<&String> = all.iter().collect();
        Ok(Keys { repeated: all.len() - distinct.len(), empty_lines: text.lines().count() - all.len(), all })
    }
}

/// The members of a file, in its order.
#[derive(Debug)]
pub struct Members {
    file: PathBuf,
    all: Vec<Entry>,
    /// How many members are repeated. They count once, with the last weight.
    pub repeated: usize,
}

impl Members {
    pub fn read(file: &Path) -> Result<Members, InputError> {
        let mut all = Vec::new();
        for (number, line) in (1..).zip(lines(&read(file)?)) {
            if !line.trim().is_empty() {
                let bad = |source| InputError::BadMember { file: file.into(), line: number, source };
                all.push(line.parse::<Entry>().map_err(bad)?);
            }
        }
        if all.is_empty() {
            return Err(InputError::Empty { file: file.into(), what: "member" });
        }
        let distinct: HashSet<&String> = all.iter().map(|member| &member.id).collect();
        Ok(Members { file: file.into(), repeated: all.len() - distinct.len(), all })
    }

    /// The ring that `empty` becomes with these members.
    pub fn ring(&self, empty: HashRingBuilder) -> Result<HashRing, InputError> {
        let add = |ring: HashRingBuilder, member: &Entry| ring.weighted_member(&member.id, member.weight);
        Ok(self.all.iter().fold(empty, add).build()?)
    }

    /// The ring after some members have left and then some have joined.
    pub fn change(&self, ring: &HashRing, leave: &[String], join: &[Entry]) -> Result<HashRing, InputError> {
        let mut after = ring.clone();
        for member in leave {
            if !after.contains(member) {
                return Err(InputError::UnknownLeaver { member: member.clone(), file: self.file.clone() });
            }
            after = after.without_member(member);
        }
        for member in join {
            if after.contains(&member.id) {
                return Err(InputError::AlreadyThere { member: member.id.clone() });
            }
            after = after.with_member(&member.id, member.weight)?;
        }
        Ok(after)
    }
}

/// The lines. Files that were put together from others can have a byte order mark at any of them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(without_mark)
}

fn read(file: &Path) -> Result<String, InputError> {
    let bytes = fs::read(file).map_err(|source| InputError::Unreadable { file: file.into(), source })?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(InputError::Utf16 { file: file.into() });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        InputError::NotUtf8 { file: file.into(), line }
    })
}
