//! The files that are to be hashed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::support::Failure;

/// A file with something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// As it was found.
    pub name: String,
    /// Absolute: workers may run in other folders.
    pub path: String,
    pub bytes: u64,
}

/// The files at `paths` and in the folders there, largest first. Left out are empty files, and in folders also
/// hidden ones and links.
///
/// Without `paths` it is those of `src` in this folder, or else those of this folder itself.
pub fn find(paths: &[PathBuf]) -> Result<Vec<File>, Failure> {
    let mut found = Vec::new();
    match paths {
        [] if Path::new("src").is_dir() => look_into(Path::new("src"), true, &mut found)?,
        [] => look_into(Path::new("."), false, &mut found)?,
        paths => paths.iter().try_for_each(|path| {
            let kind = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
            if kind.is_dir() { look_into(path, true, &mut found) } else { add(path, kind.len(), &mut found) }
        })?,
    }
    found.sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.name.cmp(&other.name)));
    found.dedup();
    if found.is_empty() {
        return Err("there is no file with anything in it; name some files or folders".into());
    }
    Ok(found)
}

fn look_into(folder: &Path, is_deep: bool, found: &mut Vec<File>) -> Result<(), Failure> {
    for entry in fs::read_dir(folder).map_err(|error| cannot_read(folder, &error))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // Says of a link that it is a link.
        let kind = entry.metadata()?;
        if kind.is_dir() && is_deep {
            look_into(&entry.path(), true, found)?;
        } else if kind.is_file() {
            add(&entry.path(), kind.len(), found)?;
        }
    }
    Ok(())
}

fn add(path: &Path, bytes: u64, found: &mut Vec<File>) -> Result<(), Failure> {
    let text = |path: &Path| path.to_str().map(String::from);
    let (Some(name), Some(absolute)) = (text(path), text(&std::path::absolute(path)?)) else {
        return Err(format!("{}: messages are JSON, and this name is no UTF-8", path.display()).into());
    };
    if bytes > 0 {
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        found.push(File { name, path: absolute, bytes });
    }
    Ok(())
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    format!("{}: {error}", path.display()).into()
}
