//! Finds the paths in a source text, as far as that is possible without a compiler.

/// The words and signs of a source text, without comments, texts and characters.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    let text: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| text.get(at + i) == Some(&c));
    let past = |mut at: usize, end: &str| {
        while at < text.len() && !starts(at, end) {
            at += 1;
        }
        at + end.len()
    };
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        if starts(at, "//") {
            at = past(at, "\n");
        } else if starts(at, "/*") {
            let mut open = 0;
            loop {
                open += i32::from(starts(at, "/*")) - i32::from(starts(at, "*/"));
                at += if starts(at, "/*") || starts(at, "*/") { 2 } else { 1 };
                if open == 0 || at >= text.len() {
                    break;
                }
            }
        } else if c == '"' {
            at += 1;
            while at < text.len() && text[at] != '"' {
                at += if text[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if starts(at, "'\\") {
            at = past(at + 3, "'");
        } else if c == '\'' {
            // A character, or else a lifetime.
            at += if starts(at + 2, "'") { 3 } else { 1 };
        } else if c.is_alphanumeric() || c == '_' {
            let start = at;
            while text.get(at).is_some_and(|c| c.is_alphanumeric() || *c == '_') {
                at += 1;
            }
            let word: String = text[start..at].iter().collect();
            let hashes = text[at..].iter().take_while(|c| **c == '#').count();
            if ["r", "br", "cr"].contains(&&*word) && starts(at + hashes, "\"") {
                at = past(at + hashes + 1, &format!("\"{}", "#".repeat(hashes)));
            } else {
                tokens.push(word);
            }
        } else if starts(at, "::") {
            tokens.push("::".into());
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.into());
            }
            at += 1;
        }
    }
    tokens
}

/// A path that a source text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// In full: `crate`, module, item, or the crate that it leads into.
    pub(crate) path: Vec<String>,
    /// Whether it is only re-exported, by `pub use`.
    pub(crate) is_export: bool,
}

/// All paths outside of test code.
pub(crate) fn paths_in(file: &[String], tokens: &[String]) -> Vec<Named> {
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    let mut found = Vec::new();
    let mut module = file.to_vec();
    let (mut inline, mut depth) = (Vec::new(), 0);
    let mut at = 0;
    while at < tokens.len() {
        let start = at;
        at += 1;
        match token(start) {
            "#" if is_test_only(&tokens[start..]) => at = past_item(tokens, start),
            "mod" if token(start + 2) == "{" => {
                module.push(token(start + 1).into());
                inline.push(depth);
                depth += 1;
                at += 2;
            }
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.last() == Some(&depth) {
                    inline.pop();
                    module.pop();
                }
            }
            head if is_word(head) && (token(at) == "::" || token(start.wrapping_sub(1)) == "use") => {
                let mut paths = Vec::new();
                at = read_paths(tokens, start, &[], &mut paths);
                let is_export = token(start.wrapping_sub(1)) == "use"
                    && ["pub", ")"].contains(&token(start.wrapping_sub(2)));
                let named = |path| Named { path: in_full(&module, path), is_export };
                found.extend(paths.into_iter().map(named));
            }
            _ => {}
        }
    }
    found
}

/// Whether an attribute restricts its item to tests.
fn is_test_only(tokens: &[String]) -> bool {
    let starts = |with: &[&str]| tokens.iter().zip(with).filter(|(a, b)| a == b).count() == with.len();
    starts(&["#", "[", "cfg", "(", "test", ")"]) || starts(&["#", "[", "cfg", "(", "all", "(", "test"])
}

/// The end of the item that starts at `at`: its semicolon or the end of its block.
fn past_item(tokens: &[String], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match &*tokens[at] {
            ";" if depth == 0 => return at + 1,
            "{" => depth += 1,
            "}" if depth == 1 => return at + 1,
            "}" => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    at
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads a path or a tree of imports, and returns where it ends.
fn read_paths(tokens: &[String], at: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    if token(at) == "{" {
        let mut at = at + 1;
        while at < tokens.len() && token(at) != "}" {
            at = match token(at) {
                "," => at + 1,
                "as" => at + 2,
                _ => read_paths(tokens, at, prefix, found),
            };
        }
        return at + 1;
    }
    let mut path = prefix.to_vec();
    if token(at) != "self" || prefix.is_empty() {
        path.push(token(at).into());
    }
    let more = token(at + 1) == "::" && (is_word(token(at + 2)) || ["{", "*"].contains(&token(at + 2)));
    if more {
        return read_paths(tokens, at + 2, &path, found);
    }
    found.push(path);
    at + 1
}

/// Resolves `self` and `super`.
fn in_full(module: &[String], path: Vec<String>) -> Vec<String> {
    if !["self", "super"].contains(&&*path[0]) {
        return path;
    }
    let ups = path.iter().take_while(|part| *part == "super" || *part == "self").count();
    let supers = path.iter().filter(|part| *part == "super").count();
    let kept = &module[..module.len().saturating_sub(supers)];
    ["crate".to_string()].iter().chain(kept).chain(&path[ups..]).cloned().collect()
}
