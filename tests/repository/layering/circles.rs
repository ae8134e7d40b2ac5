//! Finds files that depend on each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    module_of,
    source::{Named, paths_in, tokens},
    sources,
};

/// The files that depend on each other in a circle, each with those in it that it depends on. A re-export by `pub use`
/// is not a dependency: a file that imports the item depends on the file that owns it.
fn circles(sources: &[(String, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let named: BTreeMap<String, Vec<Named>> = sources
        .iter()
        // The command is another crate.
        .filter(|(path, _)| !path.ends_with("/tests.rs") && !path.starts_with("src/bin/"))
        .map(|(path, text)| (module_of(path), text))
        .map(|(module, text)| (module.join("::"), paths_in(&module, &tokens(text))))
        .collect();
    let mut dependencies: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, paths) in &named {
        let on = paths.iter().filter(|path| !path.is_export).filter_map(|named_here| {
            let path = within(module, &named_here.path, &named)?;
            Some(owner(&path, &named, 0)).filter(|owner| owner != module)
        });
        dependencies.insert(module.clone(), on.collect());
    }
    let reached: BTreeMap<_, _> =
        dependencies.keys().map(|module| (module, reached_from(module, &dependencies))).collect();
    let in_circle = |module: &String| reached[module].contains(module);
    let circles = dependencies.iter().filter(|(module, _)| in_circle(module)).map(|(module, on)| {
        let back = on.iter().filter(|on| reached[*on].contains(module)).cloned();
        (module.clone(), back.collect())
    });
    circles.collect()
}

/// All files that a file depends on, and those that they depend on.
fn reached_from(module: &str, dependencies: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut rest = vec![module];
    while let Some(module) = rest.pop() {
        rest.extend(
            dependencies[module].iter().filter(|on| reached.insert((*on).clone())).map(String::as_str),
        );
    }
    reached
}

/// A path into this crate without the leading `crate`; `None` for another crate.
fn within(module: &str, path: &[String], named: &BTreeMap<String, Vec<Named>>) -> Option<Vec<String>> {
    if path[0] == "crate" {
        return Some(path[1..].to_vec());
    }
    let child = if module.is_empty() { path[0].clone() } else { format!("{module}::{}", path[0]) };
    let own = module.split("::").filter(|part| !part.is_empty()).map(String::from);
    named.contains_key(&child).then(|| own.chain(path.iter().cloned()).collect())
}

/// The file that owns the item at a path, also if other files re-export it.
fn owner(path: &[String], named: &BTreeMap<String, Vec<Named>>, depth: usize) -> String {
    let modules = (0..=path.len()).rev().map(|len| (len, path[..len].join("::")));
    let (len, module) = modules.into_iter().find(|(_, name)| named.contains_key(name)).unwrap_or_default();
    let Some(item) = path.get(len).filter(|_| depth < 8) else { return module };
    let handed_on =
        named.get(&module).into_iter().flatten().find(|it| it.is_export && it.path.last() == Some(item));
    match handed_on.and_then(|it| within(&module, &it.path, named)) {
        Some(on) => owner(&on, named, depth + 1),
        None => module,
    }
}

#[test]
fn no_files_depend_on_each_other_in_a_circle() {
    let found = circles(&sources());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_circle_is_found_with_any_kind_of_import() {
    let circle = |texts: &[(&str, &str)]| {
        let sources: Vec<_> =
            texts.iter().map(|(path, text)| (format!("src/{path}.rs"), (*text).to_string())).collect();
        circles(&sources).into_keys().collect::<Vec<_>>()
    };
    let (a, b) = ("a", "b");
    for texts in [
        &[(a, "use crate::b::B; pub struct A;"), (b, "use crate::a::A; pub struct B;")][..],
        &[(a, "fn f() -> crate::b::B { todo!() }"), (b, "use super::a::{self, A};")],
        &[("lib", "pub use a::A;"), (a, "use crate::b::B;"), (b, "use crate::A;")],
    ] {
        assert_eq!(circle(texts), [a, b], "{texts:?}");
    }
    let parent = [("x", "mod y; use self::y::Y; pub struct X;"), ("x/y", "use super::X; pub struct Y;")];
    assert_eq!(circle(&parent), ["x", "x::y"]);
    let long = [
        (a, "use crate::b::B;"),
        (b, "use crate::c::C;"),
        ("c", "use crate::a::A;"),
        ("d", "use crate::a::A;"),
    ];
    assert_eq!(circle(&long), ["a", "b", "c"]);
    for texts in [
        &[("x", "mod y; mod z; pub use self::y::Y;"), ("x/y", "pub struct Y;"), ("x/z", "use super::Y;")][..],
        &[(a, "use crate::b::B;"), (b, "#[cfg(test)]\nmod tests { use crate::a::A; }")],
        &[(a, "use crate::b::B; use crate::c::C;"), (b, "use crate::c::C;"), ("c", "")],
    ] {
        assert_eq!(circle(texts), [""; 0], "{texts:?}");
    }
}
