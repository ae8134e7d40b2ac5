// Pure: no runtime, no clock, no socket, no random numbers.

//! [`ZnodePath`], an absolute znode path that was validated.

use std::{fmt, str::FromStr};

/// The absolute path of a znode, which ZooKeeper accepts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZnodePath(Box<str>);

/// Why a text cannot be the path or the name of a znode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The text is empty where a path or a name was expected.
    #[error("it is empty")]
    Empty,
    /// The path does not start with a slash.
    #[error("`{0}` is relative: a znode path starts with `/`")]
    Relative(String),
    /// The path has two slashes in a row, or one at the end.
    #[error("`{0}` has an empty part")]
    EmptyPart(String),
    /// A part is `.` or `..`, which are reserved.
    #[error("{}", reserved(.0, .1))]
    Reserved(String, &'static str),
    /// The name contains a slash.
    #[error("`{0}` contains `/`")]
    Slash(String),
    /// It contains a character that the server refuses: a control character, one of the private use area, of U+FFF0 to
    /// U+FFFF, or above U+FFFF.
    #[error("`{}` contains {:?}, which ZooKeeper refuses in names", .0.escape_debug(), .1)]
    Refused(String, char),
}

fn reserved(text: &str, name: &str) -> String {
    if text == name {
        format!("ZooKeeper reserves the name `{name}`")
    } else {
        format!("`{text}` contains `{name}`, a name that ZooKeeper reserves")
    }
}

impl ZnodePath {
    /// The root, `/`.
    pub fn root() -> Self {
        ZnodePath("/".into())
    }

    /// Validates `path`.
    ///
    /// # Errors
    ///
    /// [`PathError`] if `path` is empty, relative, has empty parts or parts that ZooKeeper refuses.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        if path.is_empty() {
            return Err(PathError::Empty);
        }
        if path == "/" {
            return Ok(ZnodePath::root());
        }
        let Some(parts) = path.strip_prefix('/') else { return Err(PathError::Relative(path.into())) };
        for part in parts.split('/') {
            check_name(part, path)?;
        }
        Ok(ZnodePath(path.into()))
    }

    /// The child `name` of this znode.
    ///
    /// # Errors
    ///
    /// [`PathError`] if `name` is empty, has a slash or anything else that ZooKeeper refuses.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        if name.is_empty() {
            return Err(PathError::Empty);
        }
        if name.contains('/') {
            return Err(PathError::Slash(name.into()));
        }
        check_name(name, name)?;
        let parent = if self.is_root() { "" } else { &self.0 };
        Ok(ZnodePath(format!("{parent}/{name}").into()))
    }

    /// The parent; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        match self.0.rfind('/') {
            None | Some(0) => Some(ZnodePath::root()),
            Some(slash) => Some(ZnodePath(self.0[..slash].into())),
        }
    }

    /// The last part; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The ancestors of this path below the root, the topmost first, and this path at the end.
    pub fn with_ancestors(&self) -> Vec<ZnodePath> {
        let slashes = self.0.match_indices('/').map(|(at, _)| at).skip(1);
        let mut paths: Vec<_> = slashes.map(|at| ZnodePath(self.0[..at].into())).collect();
        if !self.is_root() {
            paths.push(self.clone());
        }
        paths
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_name(name: &str, within: &str) -> Result<(), PathError> {
    match name {
        "" => return Err(PathError::EmptyPart(within.into())),
        "." => return Err(PathError::Reserved(within.into(), ".")),
        ".." => return Err(PathError::Reserved(within.into(), "..")),
        _ => {}
    }
    let refused = name.chars().find(|c| {
        matches!(c, '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}')
            || *c > '\u{ffff}'
    });
    refused.map_or(Ok(()), |c| Err(PathError::Refused(within.into(), c)))
}

impl AsRef<str> for ZnodePath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for ZnodePath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        ZnodePath::parse(path)
    }
}

impl fmt::Display for ZnodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ZnodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_made_of_names_that_zookeeper_accepts() {
        for good in
            ["/", "/a", "/a/b", "/tooz/alarm evaluator", "/a%b", "/группа/組", "/a\u{feff}", "/a\u{a0}b"]
        {
            assert_eq!(ZnodePath::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "", "a", "a/b", "//", "/a/", "/a//b", "/.", "/a/..", "/a\u{0}", "/a\u{1f}", "/a\u{7f}",
            "/a\u{9f}",
        ] {
            assert!(ZnodePath::parse(bad).is_err(), "{bad:?} was accepted");
        }
        for bad in ["/\u{e000}", "/\u{f8ff}", "/\u{fff0}", "/\u{ffff}", "/\u{1f600}"] {
            assert!(matches!(ZnodePath::parse(bad), Err(PathError::Refused(..))), "{bad:?} was accepted");
        }
    }

    #[test]
    fn join_takes_one_name_and_parent_undoes_it() {
        let root = ZnodePath::root();
        let group = root.join("tooz").unwrap().join("g").unwrap();
        assert_eq!(group.as_str(), "/tooz/g");
        assert_eq!(group.parent().unwrap().as_str(), "/tooz");
        assert_eq!(group.parent().unwrap().parent(), Some(root.clone()));
        assert_eq!(root.parent(), None);
        assert_eq!((group.name(), root.name()), ("g", ""));
        for bad in ["", "a/b", "/", ".", "..", "a\n"] {
            assert!(group.join(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn ancestors_come_topmost_first_and_leave_the_root_out() {
        let texts = |path: &str| -> Vec<String> {
            ZnodePath::parse(path).unwrap().with_ancestors().iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts("/a/b/c"), ["/a", "/a/b", "/a/b/c"]);
        assert_eq!(texts("/a"), ["/a"]);
        assert!(texts("/").is_empty());
    }
}
