//! The documents name files that exist.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folders at the root by which a file of ours is known when a text names it.
const FOLDERS: [&str; 7] = ["benches/", "docs/", "examples/", "fuzz/", "scripts/", "src/", "tests/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents, those of docs included.
fn documents() -> Vec<PathBuf> {
    let folders = [root().to_owned(), root().join("docs")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("it can be read"));
    let files = files.map(|file| file.expect("it can be read").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The files of ours that a text names by their path from the root.
fn paths_in(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    let words = text.split(|c| !is_part(c)).map(|word| word.trim_end_matches(['.', '-', '/']));
    words.filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder))).collect()
}

/// The documents to which a text has links, as the links say it.
fn links_in(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| target.ends_with(".md") && !target.contains("://")).collect()
}

#[test]
fn every_path_and_every_link_in_a_document_leads_to_a_file() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document is text");
        let folder = document.parent().expect("it is in a folder");
        let named = paths_in(&text).into_iter().map(|path| (path, root().join(path)));
        let linked = links_in(&text).into_iter().map(|link| (link, folder.join(link)));
        for (name, path) in named.chain(linked) {
            checked += 1;
            if !path.exists() {
                wrong.push(format!("{} names {name}", document.display()));
            }
        }
    }
    assert!(checked > 50, "only {checked} were found");
    assert!(wrong.is_empty(), "there is no such file:\n{}", wrong.join("\n"));
}

#[test]
fn the_guide_to_a_service_shows_the_example_that_the_tests_run() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("it is there");
    let (guide, example) = (read("docs/service.md"), read("examples/alarm_service.rs"));
    let code = example.lines().skip_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
    assert!(guide.contains(code.trim()), "docs/service.md has another text than examples/alarm_service.rs");
}

#[test]
fn the_first_five_examples_of_the_readme_have_fewer_than_sixty_lines() {
    let readme = fs::read_to_string(root().join("README.md")).expect("it is there");
    let (_, examples) = readme.split_once("The first five have fewer than sixty lines").expect("it says so");
    let names = examples.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let names: Vec<_> = names.take(5).collect();
    assert_eq!(names.len(), 5);
    for name in names {
        let example = fs::read_to_string(root().join(format!("examples/{name}.rs"))).expect("it is there");
        assert!(example.lines().count() < 60, "{name} has {} lines", example.lines().count());
    }
}

#[test]
fn paths_and_links_are_found_wherever_they_stand() {
    let text = "`src/a.rs`, tests/b/main.rs. See [c](docs/c.md#d), [e](../e.md), (scripts/f): not https://x/src/g.rs, \
        `tests/<room>/main.rs`, [h](https://x/h.md) or worker/i.rs";
    assert_eq!(paths_in(text), ["src/a.rs", "tests/b/main.rs", "docs/c.md", "scripts/f"]);
    assert_eq!(links_in(text), ["docs/c.md", "../e.md"]);
}
