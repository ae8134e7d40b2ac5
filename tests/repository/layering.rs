//! Reads the sources and checks what ARCHITECTURE promises of them: imports run downward only and name the
//! owning module, a pure file knows no runtime, clock or random numbers, and some things have one place only.
//!
//! Comments, texts and test code may name anything.

mod circles;
mod source;

use std::{
    fs,
    path::{Path, PathBuf},
};

use source::{paths_in, tokens};

/// The modules from the top layer down, each with those it may import. A submodule that stands alone here is a
/// leaf that layers between it and its parent may use.
const LAYERS: &[(&str, &[&str])] = &[
    ("guide", &[]),
    ("http", &["coordinator", "board", "queue", "group", "session::shown"]),
    ("testing", &["backend", "backend::path", "clock", "future", "task"]),
    (
        "run",
        &[
            "board",
            "queue",
            "group",
            "group::held",
            "lease",
            "share",
            "session",
            "error",
            "task",
            "clock",
            "metrics",
            "backoff",
            "random",
            "future",
            "ring",
            "token",
            "watch",
        ],
    ),
    (
        "coordinator",
        &[
            "metrics",
            "opened",
            "board",
            "queue",
            "group",
            "lease",
            "share",
            "session",
            "session::shown",
            "error",
            "config",
            "member",
            "backend",
            "backend::path",
            "task",
            "clock",
            "random",
            "ring",
            "watch",
        ],
    ),
    ("board", LEASED),
    ("queue", LEASED),
    ("worker", &["metrics", "ring", "backoff", "future", "task", "clock", "random", "watch", "tls", "host"]),
    (
        "group",
        &[
            "metrics",
            "share",
            "group::held",
            "group::register",
            "session",
            "session::timing",
            "error",
            "member",
            "backend",
            "backend::path",
            "task",
            "clock",
            "backoff",
            "random",
            "ring",
            "token",
            "watch",
        ],
    ),
    (
        "lease",
        &[
            "session",
            "error",
            "member",
            "backend",
            "backend::path",
            "task",
            "backoff",
            "random",
            "future",
            "token",
        ],
    ),
    ("share", &["group::held", "group::register", "session", "clock", "ring", "token"]),
    ("group::held", &["group::register", "session", "clock", "token"]),
    ("group::register", &["session", "clock", "ring", "token"]),
    (
        "session",
        &[
            "metrics",
            "session::shown",
            "session::timing",
            "error",
            "config",
            "backend",
            "backend::path",
            "task",
            "clock",
            "backoff",
            "random",
            "future",
            "watch",
        ],
    ),
    ("error", &["config", "member", "backend", "backend::path", "ring"]),
    ("config", &["member", "session::timing", "backend", "backend::path", "ring", "tls", "host"]),
    ("member", &["backend::path"]),
    ("session::timing", &[]),
    ("session::shown", &["metrics"]),
    ("backend", &["backend::path", "task", "clock", "future", "random", "tls", "host"]),
    ("backend::path", &[]),
    ("task", &[]),
    ("ages", &["clock"]),
    ("clock", &[]),
    ("backoff", &[]),
    ("random", &[]),
    ("tls", &[]),
    ("host", &[]),
    ("future", &[]),
    ("json", &[]),
    ("token", &[]),
    ("opened", &[]),
    ("metrics", &[]),
    ("watch", &[]),
    ("ring", &[]),
];

/// The modules that the recipes on top of a lease may import.
const LEASED: &[&str] = &[
    "lease",
    "session",
    "error",
    "backend",
    "backend::path",
    "clock",
    "backoff",
    "random",
    "json",
    "watch",
    "ages",
    "opened",
    "metrics",
];

/// The files that have to be pure, as soon as they exist: whole folders end with a slash.
const PURE: &[&str] = &[
    "src/backend/path.rs",
    "src/board/attempts.rs",
    "src/board/layout.rs",
    "src/board/posting.rs",
    "src/board/python_json.rs",
    "src/config/preset.rs",
    "src/error/holder.rs",
    "src/error/unclear.rs",
    "src/group/engine.rs",
    "src/group/engine/",
    "src/group/handover.rs",
    "src/group/handover/",
    "src/group/member.rs",
    "src/group/observe/pending.rs",
    "src/group/placement.rs",
    "src/group/python.rs",
    "src/group/rebalance.rs",
    "src/group/roster.rs",
    "src/http/accept.rs",
    "src/http/page.rs",
    "src/http/page/",
    "src/queue/ages.rs",
    "src/group/weight.rs",
    "src/queue/entry.rs",
    "src/host.rs",
    "src/json.rs",
    "src/lease/given_back.rs",
    "src/member.rs",
    "src/queue/fill.rs",
    "src/queue/id.rs",
    "src/queue/labels.rs",
    "src/queue/layout.rs",
    "src/queue/moves.rs",
    "src/queue/names.rs",
    "src/queue/object.rs",
    "src/queue/value.rs",
    "src/ring.rs",
    "src/ring/",
    "src/run/counts.rs",
    "src/run/failure.rs",
    "src/run/plan.rs",
    "src/run/rate.rs",
    "src/run/states.rs",
    "src/run/table.rs",
    "src/session/deadline.rs",
    "src/session/later.rs",
    "src/session/rivals.rs",
    "src/session/timing.rs",
    "src/token.rs",
    "src/worker/amqp/url.rs",
    "src/worker/arguments.rs",
    "src/worker/engine.rs",
    "src/worker/engine/",
    "src/worker/error.rs",
    "src/worker/finder.rs",
    "src/worker/instances.rs",
    "src/worker/lifecycle.rs",
    "src/worker/message.rs",
    "src/worker/message/",
    "src/worker/outcome.rs",
    "src/worker/sender.rs",
    "src/worker/state.rs",
    "src/worker/validate.rs",
];

/// Everything wrong with the file at `path`, which is relative to the crate and has slashes.
fn check(path: &str, text: &str) -> Vec<String> {
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return Vec::new();
    }
    let (module, tokens) = (module_of(path), tokens(text));
    let paths: Vec<_> = paths_in(&module, &tokens).into_iter().map(|named| named.path).collect();
    let mut wrong = Vec::new();
    // The command is a program of its own, which uses the crate as any other does.
    if !module.is_empty() && !path.starts_with("src/bin/") {
        check_arrows(&module, &paths, &mut wrong);
    }
    let pure = text.lines().any(|line| line.starts_with("// Pure:"));
    if !pure && PURE.iter().any(|name| path == *name || name.ends_with('/') && path.starts_with(name)) {
        wrong.push("has no line `// Pure:`".into());
    }
    if pure {
        let impure = paths.iter().filter(|path| is_impure(path));
        wrong.extend(impure.map(|path| format!("is pure and names `{}`", path.join("::"))));
    }
    if tokens.windows(4).any(|at| at[..3] == ["select", "!", "{"] && at[3] != "biased") {
        wrong.push("has a `select!` that is not `biased`: its order would be random".into());
    }
    // Short for our own module, where that is imported.
    let names_ours = paths.iter().any(|path| path.starts_with(&["crate".to_owned(), "metrics".to_owned()]));
    for found in &paths {
        let name = found.join("::");
        let is_random = found[0] == "fastrand" || found.iter().any(|part| part == "new_v4");
        if is_random && path != "src/random.rs" && !path.starts_with("src/testing") {
            wrong.push(format!("names `{name}`: only src/random.rs makes random numbers and ids"));
        }
        if spawns(found) && path != "src/task.rs" {
            wrong.push(format!("names `{name}`: only src/task.rs spawns"));
        }
        if found[0] == "backoff" && path != "src/backoff.rs" {
            wrong.push(format!("names `{name}`: only src/backoff.rs names that crate"));
        }
        if found[0] == "metrics" && !names_ours && path != "src/metrics/emit.rs" {
            wrong.push(format!("names `{name}`: only src/metrics/emit.rs names that crate"));
        }
        if found[0] == "zookeeper_client" && !path.starts_with("src/backend/zookeeper") {
            wrong.push(format!(
                "names `{name}`: only src/backend/zookeeper.rs and its folder name that crate"
            ));
        }
        if found[0] == "tower_service" && !["src/run/service.rs", "src/http.rs"].contains(&path) {
            wrong.push(format!("names `{name}`: only src/run/service.rs and src/http.rs name that crate"));
        }
        if found[0] == "lapin" && !path.starts_with("src/worker/amqp") {
            wrong.push(format!("names `{name}`: only src/worker/amqp.rs and its folder name that crate"));
        }
    }
    wrong.into_iter().map(|what| format!("{path} {what}")).collect()
}

fn check_arrows(module: &[String], paths: &[Vec<String>], wrong: &mut Vec<String>) {
    let Some((from, allowed)) = layer_of(module) else {
        wrong.push("has no place among the layers: give it one in tests/repository/layering.rs".into());
        return;
    };
    for path in paths.iter().filter(|path| path[0] == "crate") {
        let name = path.join("::");
        match layer_of(&path[1..]) {
            None => wrong.push(format!("names `{name}`, which is not in the module that owns it")),
            Some((to, _)) if to == from || allowed.contains(&to) => {}
            Some((to, _)) => wrong.push(format!("names `{name}`, but `{from}` may not import `{to}`")),
        }
    }
}

/// The layer of a module or of an item in it: the longest name in the table that it starts with.
fn layer_of(path: &[String]) -> Option<(&'static str, &'static [&'static str])> {
    let starts = |name: &str| {
        let mut parts = path.iter();
        name.split("::").all(|part| parts.next().is_some_and(|found| found == part))
    };
    LAYERS.iter().filter(|(name, _)| starts(name)).max_by_key(|(name, _)| name.len()).copied()
}

fn is_impure(path: &[String]) -> bool {
    let crates = ["tokio", "tokio_util", "fastrand", "rand", "getrandom"];
    let names = ["Instant", "SystemTime", "Clock", "BootClock", "TokioClock", "new_v4", "thread"];
    crates.contains(&&*path[0]) || path.iter().any(|part| names.contains(&&**part))
}

fn spawns(path: &[String]) -> bool {
    match path {
        [.., owner, name] if name.starts_with("spawn") => ["tokio", "task", "thread"].contains(&&**owner),
        [first, .., last] => first == "tokio" && (last == "JoinSet" || last.starts_with("spawn")),
        _ => false,
    }
}

/// `src/a/b.rs` is `a::b`; the root has no name.
fn module_of(path: &str) -> Vec<String> {
    let name = path.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs")).expect("a source file");
    let name = name.strip_suffix("/mod").unwrap_or(name);
    if name == "lib" { Vec::new() } else { name.split('/').map(String::from).collect() }
}

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut files): (Vec<PathBuf>, _) = (vec![root.join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the sources can be read") {
            let path = entry.expect("the sources can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("the sources can be read");
                let name =
                    path.strip_prefix(root).expect("it is below").to_str().expect("our names are ASCII");
                files.push((name.replace('\\', "/"), text));
            }
        }
    }
    files
}

#[test]
fn every_source_file_keeps_to_its_layer() {
    let sources = sources();
    for file in ["src/lib.rs", "src/ring.rs", "src/ring/hash.rs", "src/backend/path.rs", "src/task.rs"] {
        assert!(sources.iter().any(|(path, _)| path == file), "{file} was not read");
    }
    let wrong: Vec<String> = sources.iter().flat_map(|(path, text)| check(path, text)).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_allowed_arrows_run_downward_so_there_is_no_cycle() {
    for (place, (from, allowed)) in LAYERS.iter().enumerate() {
        for to in *allowed {
            let below = LAYERS[place + 1..].iter().any(|(name, _)| name == to);
            assert!(below, "`{to}` is not below `{from}`");
        }
    }
}

#[test]
fn an_upward_import_is_found_in_any_spelling() {
    for text in [
        "use crate::group::Group;",
        "use crate::{\n    clock::{Clock, Moment},\n    group::{self, View},\n};",
        "use super::super::group::Group;",
        "pub(crate) use crate::group as friends;",
        "fn f() -> crate::group::Group { todo!() }",
        "fn f<'a>(x: &'a str) -> bool { x == \"\\\"\" && '\"' != '\\'' && crate::group::is(x) }",
        "const X: &str = r#\"\"\"#; use crate::group::Group;",
        "/* /* */ */ use crate::group::Group;",
        "mod inner { mod deeper {} use super::super::super::group::Group; }",
        "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::group::Group;",
        "#[cfg(test)]\nuse std::fs;\nuse crate::group::Group;",
    ] {
        let wrong = check("src/backend/memory.rs", text);
        assert!(!wrong.is_empty(), "{text}");
        for what in &wrong {
            assert!(what.ends_with("but `backend` may not import `group`"), "{text}\n{what}");
        }
    }
}

#[test]
fn comments_texts_tests_and_downward_imports_are_fine() {
    for text in [
        "//! See [`crate::group`].\n// crate::group::Group\n/* crate::group::Group */",
        "const X: (&str, &str, char) = (\"crate::group::X \\\" crate::group::X\", r#\"\" crate::group::X\"#, '\"');",
        "#[cfg(test)]\nmod tests {\n    use crate::group::Group;\n    fn f() { tokio::spawn(g()); }\n}",
        "#[cfg(all(test, unix))]\nuse crate::group::Group;",
        "use crate::{backend::{self, path::ZnodePath}, clock::Moment, task::Tasks};",
        "use super::{Error, path::ZnodePath};\nuse self::tree::Tree;\npub(crate) fn f(tasks: &Tasks) { tasks.spawn(\"f\", g()) }",
    ] {
        assert_eq!(check("src/backend/memory.rs", text), [""; 0], "{text}");
    }
    assert_eq!(check("src/backend/memory/tests.rs", "use crate::group::Group;"), [""; 0]);
    assert_eq!(check("src/lib.rs", "pub use group::Group;\npub use crate::coordinator::X;"), [""; 0]);
}

#[test]
fn a_leaf_may_be_used_from_below_its_parent_but_imports_little_itself() {
    let leaf = "use crate::session::timing::Timing;";
    assert_eq!(check("src/config.rs", leaf), [""; 0]);
    assert_eq!(check("src/config.rs", "use crate::session::Live;").len(), 1);
    assert_eq!(check("src/session/timing.rs", "// Pure: x\nuse super::Live;").len(), 1);
    assert_eq!(check("src/backend/path.rs", "// Pure: x\nuse super::Error;").len(), 1);
}

#[test]
fn an_import_from_the_crate_root_is_found() {
    for text in
        ["use crate::HashRing;", "use crate::*;", "use crate::{HashRing};", "fn f(ring: &crate::HashRing) {}"]
    {
        let wrong = check("src/group.rs", text);
        assert_eq!(wrong.len(), 1, "{text}\n{wrong:?}");
        assert!(wrong[0].ends_with("which is not in the module that owns it"), "{wrong:?}");
    }
}

#[test]
fn a_module_without_a_layer_is_found() {
    assert_eq!(check("src/extra/deep.rs", "").len(), 1);
}

#[test]
fn a_pure_file_that_knows_a_runtime_a_clock_or_random_numbers_is_found() {
    for text in [
        "use tokio::sync::watch;",
        "async fn f() { tokio::task::yield_now().await }",
        "fn f() { std::time::Instant::now(); }",
        "use std::time::{Duration, SystemTime};",
        "use crate::clock::{Clock, Moment};",
        "fn f() -> f64 { fastrand::f64() }",
        "fn f() { uuid::Uuid::new_v4(); }",
    ] {
        let wrong = check("src/group/engine.rs", &format!("// Pure: x\n{text}"));
        assert!(wrong[0].contains("is pure and names"), "{text}\n{wrong:?}");
        assert_eq!(
            check("src/testing/faults.rs", text).iter().find(|it| it.contains("is pure")),
            None,
            "{text}"
        );
    }
    let fine = "// Pure: no tokio.\nuse std::time::Duration;\nuse crate::clock::Moment;\n/// Not `Instant::now`.\nfn f() {}";
    assert_eq!(check("src/group/engine.rs", fine), [""; 0]);
}

#[test]
fn a_file_that_has_to_be_pure_and_is_not_marked_is_found() {
    for path in ["src/ring/hash.rs", "src/group/engine.rs"] {
        assert_eq!(check(path, "//! Some text."), [format!("{path} has no line `// Pure:`")]);
    }
    assert_eq!(check("src/group/driver.rs", "//! Some text."), [""; 0]);
}

#[test]
fn a_second_place_that_spawns_is_found() {
    for text in [
        "fn f() { tokio::spawn(async {}); }",
        "fn f() { tokio::task::spawn_blocking(|| {}); }",
        "use tokio::task; fn f() { task::spawn(async {}); }",
        "fn f() { std::thread::spawn(|| {}); }",
        "use tokio::{sync::watch, task::JoinSet};",
    ] {
        assert_eq!(check("src/group/driver.rs", text).len(), 1, "{text}");
        assert_eq!(check("src/task.rs", text), [""; 0], "{text}");
    }
}

#[test]
fn a_crate_that_one_file_alone_may_name_is_found_elsewhere() {
    for (text, home) in [
        ("use backoff::ExponentialBackoff;", "src/backoff.rs"),
        ("use zookeeper_client as zk;", "src/backend/zookeeper/convert.rs"),
        ("fn f() -> ::zookeeper_client::Client {}", "src/backend/zookeeper.rs"),
        ("use lapin::Connection;", "src/worker/amqp.rs"),
    ] {
        assert_eq!(check("src/session.rs", text).len(), 1, "{text}");
        assert_eq!(check(home, text), [""; 0], "{text}");
    }
    let ours =
        "use crate::{backoff::Backoff, clock::Moment};\nfn f(backoff: &mut Backoff) { backoff.reset() }";
    assert_eq!(check("src/session.rs", ours), [""; 0]);
}

#[test]
fn code_that_is_random_despite_a_seed_is_found() {
    for text in [
        "fn f() -> f64 { fastrand::f64() }",
        "fn f() { uuid::Uuid::new_v4(); }",
        "async fn f() { tokio::select! { () = a() => {} () = b() => {} } }",
    ] {
        assert_eq!(check("src/group/driver.rs", text).len(), 1, "{text}");
    }
    assert_eq!(check("src/random.rs", "fn f() -> f64 { fastrand::f64() }"), [""; 0]);
    let biased = "async fn f() { tokio::select! { biased; () = a() => {} () = b() => {} } }";
    assert_eq!(check("src/group/driver.rs", biased), [""; 0]);
}
