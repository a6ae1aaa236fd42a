//! Keeps the dependency rule of `src/lib.rs`: arrows between the rooms point one way, and the lock core is
//! pure. Reads the sources, so that a forbidden import fails a test and not only a review.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms it may import. Who is not listed as importing a room does not.
const MAY_IMPORT: [(&str, &[&str]); 15] = [
    ("lock", &[]),
    ("store", &["lock"]),
    ("metrics", &["lock", "store"]),
    ("shared", &["lock", "store", "metrics", "logging"]),
    ("persistence", &["lock", "store", "shared"]),
    ("resource", &["lock", "store", "shared", "persistence"]),
    (
        "registry",
        &["lock", "store", "shared", "persistence", "resource"],
    ),
    (
        "cluster",
        &["lock", "store", "shared", "resource", "registry"],
    ),
    ("config", &["lock", "store", "shared"]),
    ("logging", &[]),
    // The settings are known where they become something else: see below.
    (
        "http",
        &[
            "lock", "store", "shared", "resource", "registry", "cluster", "metrics", "config",
        ],
    ),
    ("reload", &["config", "http", "logging"]),
    (
        "app",
        &[
            "lock",
            "store",
            "metrics",
            "shared",
            "persistence",
            "resource",
            "registry",
            "cluster",
            "http",
            "config",
            "logging",
            "reload",
        ],
    ),
    (
        "cli",
        &["lock", "store", "metrics", "http", "config", "app"],
    ),
    ("main", &["config", "app", "cli", "logging", "reload"]),
];

/// The files of `http` that may import `config`: keys and what else can change while it serves, and its start.
const HTTP_FILES_WITH_SETTINGS: [&str; 3] = ["auth.rs", "policy.rs", "server.rs"];

/// What the lock core may name besides its own modules: values, and nothing that acts.
const CORE_CRATES: [&str; 5] = ["std", "core", "serde", "sha2", "smol_str"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The room that a file belongs to: its folder, or its own name beside `lib.rs`.
fn room(file: &Path) -> String {
    let inside = file.strip_prefix(source()).unwrap();
    let first = inside.components().next().unwrap();
    let first = first.as_os_str().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

/// The code without comments and without the unit tests at its end, which may use anything.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let shipped = text.split("#[cfg(test)]\nmod ").next().unwrap();
    // Who may see an item is no import.
    let line = |line: &str| {
        let said = line.split("//").next().unwrap();
        said.replace("pub(in crate::", "pub(in ")
    };
    shipped.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The words that follow `before` as a path: `crate::` finds `lock` in `crate::lock::Ticket`, and both rooms
/// in `crate::{lock, store}`.
fn words_after(code: &str, before: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for rest in code.split(before).skip(1) {
        let group = rest
            .strip_prefix('{')
            .and_then(|rest| rest.split('}').next());
        let parts = group.map_or_else(|| vec![rest], |group| group.split(',').collect());
        for part in parts {
            let part = part.trim_start();
            let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            words.insert(part[..end.unwrap_or(part.len())].to_owned());
        }
    }
    words.remove("");
    words
}

/// The crates that `Cargo.toml` brings in, as code names them.
fn dependencies() -> Vec<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let text = fs::read_to_string(manifest).unwrap();
    let section = text.split("[dependencies]\n").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let name = |line: &str| Some(line.split_once('=')?.0.trim().replace('-', "_"));
    section.lines().filter_map(name).collect()
}

/// Does the code name this crate, as the first word of a path or in a `use`?
fn names_crate(code: &str, name: &str) -> bool {
    let path = format!("{name}::");
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let in_paths = code
        .match_indices(&path)
        .any(|(at, _)| !code[..at].ends_with(is_word));
    in_paths || code.contains(&format!("use {name};"))
}

#[test]
fn rooms_import_only_the_rooms_below_them() {
    let mut seen = BTreeSet::new();
    for file in rust_files(&source()) {
        let room = room(&file);
        if room == "lib" {
            continue;
        }
        let listed = MAY_IMPORT.iter().find(|(name, _)| *name == room);
        let allowed = listed
            .unwrap_or_else(|| panic!("{room} has no line in MAY_IMPORT"))
            .1;
        let code = code(&file);
        let own_crate = if room == "main" {
            "small_resource_server::"
        } else {
            "crate::"
        };
        for imported in words_after(&code, own_crate) {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap();
            let settings_in_http = room == "http" && imported == "config";
            let permitted = imported == room
                || (allowed.contains(&imported.as_str())
                    && (!settings_in_http || HTTP_FILES_WITH_SETTINGS.contains(&name)));
            assert!(permitted, "{} imports {imported}", file.display());
            seen.insert(imported);
        }
    }
    assert!(
        seen.contains("lock") && seen.contains("store"),
        "nothing was read: {seen:?}"
    );
}

#[test]
fn the_lock_core_names_no_clock_no_runtime_and_no_other_crate() {
    let foreign: Vec<String> = dependencies()
        .into_iter()
        .filter(|name| !CORE_CRATES.contains(&name.as_str()))
        .collect();
    assert!(foreign.iter().any(|name| name == "tokio"), "{foreign:?}");
    let effects = [
        "std::time",
        "std::thread",
        "std::net",
        "std::fs",
        "std::io",
        "std::env",
        "std::process",
        "Instant",
        "SystemTime",
        "async fn",
        ".await",
        "println!",
        "static mut",
    ];
    for file in rust_files(&source().join("lock")) {
        // An address is a value like any other.
        let code = code(&file).replace("std::net::IpAddr", "std::IpAddr");
        for name in &foreign {
            assert!(!names_crate(&code, name), "{} names {name}", file.display());
        }
        for effect in effects {
            assert!(!code.contains(effect), "{} has {effect}", file.display());
        }
        for root in words_after(&code, "\nuse ") {
            let known = matches!(root.as_str(), "super" | "crate" | "self");
            // A path may also start at a module beside this one.
            let sibling = file.with_file_name(format!("{root}.rs")).exists();
            let permitted = known || sibling || CORE_CRATES.contains(&root.as_str());
            assert!(permitted, "{} uses {root}", file.display());
        }
    }
}

#[test]
fn no_room_reaches_another_through_super() {
    for file in rust_files(&source()) {
        let inside = file.strip_prefix(source()).unwrap();
        let is_root = inside.file_name().is_some_and(|name| name == "mod.rs");
        // How many modules lie between this one and the crate.
        let depth = inside.components().count() - usize::from(is_root);
        let out = "super::".repeat(depth);
        assert!(
            !code(&file).contains(&out),
            "{} leaves its room by super",
            file.display()
        );
    }
}

/// Import circles that are tolerated: all their files are below one of these.
const CIRCLES_ALLOWED: [&str; 1] = ["src/resource/"];

const FUNCTION_LINES_MAX: usize = 70;

/// A module's path inside the crate whose sources are in `src`, as `store::sqlite::read`; `mod.rs` is its folder.
fn module_of(src: &Path, file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(src).unwrap().with_extension("");
    let mut parts: Vec<String> = inside
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    parts
}

/// The paths that a `use` tree names: `a::{b, c::D}` is `a::b` and `a::c::D`.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let segments = |path: &str| -> Vec<String> {
        let path = path.split(" as ").next().unwrap();
        let parts = path.split("::").map(|part| part.trim().to_owned());
        parts.filter(|part| !part.is_empty()).collect()
    };
    let Some((prefix, rest)) = tree.split_once('{') else {
        return vec![segments(tree)];
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts
        .flat_map(expand)
        .map(|path| segments(prefix).into_iter().chain(path).collect())
        .collect()
}

type Paths = Vec<Vec<String>>;

/// The paths into this crate that a file imports or names, and those that it hands on by `pub use`.
fn paths_in(src: &Path, file: &Path, modules: &BTreeMap<String, PathBuf>) -> (Paths, Paths) {
    let (me, text) = (module_of(src, file), code(file));
    let absolute = |path: Vec<String>| -> Option<Vec<String>> {
        let ups = path.iter().take_while(|part| *part == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([&me[..], &path[1..]].concat()),
            "super" => Some([&me[..me.len() - ups], &path[ups..]].concat()),
            first => {
                let child = [&me[..], &[first.to_owned()]].concat().join("::");
                let known = modules.contains_key(&child);
                known.then(|| [&me[..], &path[..]].concat())
            }
        }
    };
    let (mut imports, mut reexports, mut rest) = (Paths::new(), Paths::new(), String::new());
    for statement in text.split_inclusive(';') {
        let at = statement.find("use ").unwrap_or(0);
        let start = statement[..at].rfind('\n').map_or(0, |line| line + 1);
        let line = statement[start..].trim_start();
        let handed_on = line.strip_prefix("pub use ");
        let tree = line.strip_prefix("use ").or(handed_on);
        let Some(tree) = tree.and_then(|tree| tree.strip_suffix(';')) else {
            rest.push_str(statement);
            continue;
        };
        let paths = expand(tree).into_iter().filter_map(absolute);
        match handed_on {
            Some(_) => reexports.extend(paths),
            None => imports.extend(paths),
        }
        rest.push_str(&statement[..start]);
    }
    let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    for word in rest.split(|c: char| !is_path(c)) {
        if word.starts_with("crate::") || word.starts_with("super::") {
            imports.extend(expand(word).into_iter().filter_map(absolute));
        }
    }
    (imports, reexports)
}

/// Which files of a crate import which: by the file where a name is, whoever hands it on.
fn import_graph(src: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let files: Vec<PathBuf> = rust_files(src)
        .into_iter()
        .filter(|file| !file.ends_with("main.rs") && !file.ends_with("lib.rs"))
        .collect();
    let modules: BTreeMap<String, PathBuf> = files
        .iter()
        .map(|file| (module_of(src, file).join("::"), file.clone()))
        .collect();
    let (mut handed_on, mut imports) = (BTreeMap::new(), BTreeMap::new());
    for file in &files {
        let (used, reexports) = paths_in(src, file, &modules);
        for path in reexports {
            let name = path.last().cloned().unwrap_or_default();
            handed_on.insert((module_of(src, file).join("::"), name), path);
        }
        imports.insert(file.clone(), used);
    }
    let target = |path: &[String]| -> Option<PathBuf> {
        let mut path = path.to_vec();
        for _ in 0..8 {
            let known = |n: &usize| modules.contains_key(&path[..*n].join("::"));
            let depth = (1..=path.len()).rev().find(known)?;
            let module = path[..depth].join("::");
            let next = path.get(depth).cloned().unwrap_or_default();
            match handed_on.get(&(module.clone(), next)) {
                Some(origin) => path = [&origin[..], &path[depth + 1..]].concat(),
                None => return modules.get(&module).cloned(),
            }
        }
        None
    };
    let name = |file: &Path| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let inside = file.strip_prefix(root).unwrap();
        inside.to_str().unwrap().to_owned()
    };
    let resolved = imports.iter().map(|(file, paths)| {
        let targets = paths.iter().filter_map(|path| target(path));
        let others = targets.filter(|target| target != file);
        (name(file), others.map(|target| name(&target)).collect())
    });
    resolved.collect()
}

/// Groups of files each of which imports, by whatever detour, all others of its group.
fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reach = |from: &String| -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&String> = graph[from].iter().collect();
        while let Some(file) = next.pop() {
            if seen.insert(file.clone()) {
                next.extend(graph.get(file).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> =
        graph.keys().map(|file| (file, reach(file))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (file, ahead) in &reached {
        let mutual = |other: &&String| reached.get(other).is_some_and(|b| b.contains(*file));
        let group: BTreeSet<String> = ahead.iter().filter(mutual).cloned().collect();
        if group.len() > 1 && !found.contains(&group) {
            found.push(group);
        }
    }
    found
}

#[test]
fn files_import_each_other_in_no_circle() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/rust/src");
    let (server, client) = (import_graph(&source()), import_graph(&client));
    assert!(server["src/registry/client.rs"].contains("src/registry/actor.rs"));
    assert!(client["clients/rust/src/lock.rs"].contains("clients/rust/src/client.rs"));
    for circle in [circles(&server), circles(&client)].concat() {
        let below = |folder: &str| circle.iter().all(|file| file.starts_with(folder));
        let tolerated = CIRCLES_ALLOWED.into_iter().any(below);
        assert!(
            tolerated,
            "these import each other in a circle: {circle:#?}"
        );
    }
}

/// Structs, enums and traits outside test modules. To be lowered when some go; a new one has to be worth its name.
const TYPES_MAX: usize = 223;

/// What this line declares: the kind, and its name.
fn declared(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let inside = line
        .strip_prefix("pub(")
        .and_then(|rest| rest.split_once(") "));
    let line = inside.map_or(line, |(_, rest)| rest);
    let mut words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let kind = words.next()?;
    let declares = ["struct", "enum", "trait", "type"].contains(&kind);
    Some((kind, words.next()?)).filter(|_| declares)
}

#[test]
fn there_are_no_more_types_than_there_were() {
    let files = rust_files(&source());
    let texts = files.iter().map(|file| code(file));
    let count = |text: String| -> usize {
        let declared = text.lines().filter_map(|line| declared(line.trim_start()));
        declared.filter(|(kind, _)| *kind != "type").count()
    };
    let types: usize = texts.map(count).sum();
    assert!(types > 100, "only {types} were read");
    assert!(
        types <= TYPES_MAX,
        "{types} structs, enums and traits: take one out, or say why TYPES_MAX grows"
    );
}

#[test]
fn each_type_has_a_name_of_its_own() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in rust_files(&source()) {
        for (_, name) in code(&file).lines().filter_map(declared) {
            let place = file.display().to_string();
            places.entry(name.to_owned()).or_default().push(place);
        }
    }
    assert!(places.contains_key("LockState"), "nothing was read");
    places.retain(|_, files| files.len() > 1);
    assert!(places.is_empty(), "one name for several types: {places:#?}");
}

/// The name of the function that starts on this line.
fn function_name(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let qualifies = |word: &str| {
        word.starts_with("pub") || word.ends_with(')') || ["async", "const"].contains(&word)
    };
    let name = rest.split_once(['(', '<'])?.0;
    before.split_whitespace().all(qualifies).then_some(name)
}

#[test]
fn functions_fit_on_a_screen() {
    let mut read = 0;
    for file in rust_files(&source()) {
        let text = code(&file);
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(name) = function_name(line) else {
                continue;
            };
            let indent = line.len() - line.trim_start().len();
            let closing = format!("{}}}", " ".repeat(indent));
            let body = lines[at..]
                .iter()
                .position(|line| line.starts_with(&closing));
            let body = body.unwrap_or(0) + 1;
            read += 1;
            assert!(
                body <= FUNCTION_LINES_MAX,
                "{} in {} has {body} lines",
                name,
                file.display()
            );
        }
    }
    assert!(read > 500, "only {read} functions were read");
}

#[test]
fn the_library_forbids_unsafe_code() {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    assert!(text.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn the_reader_of_sources_sees_what_it_should() {
    let words = |code: &str| words_after(code, "crate::").into_iter().collect::<Vec<_>>();
    assert_eq!(
        words("use crate::lock::{A, B};\nfn f(x: crate::store::C) {}"),
        ["lock", "store"]
    );
    assert_eq!(words("use crate::{lock::A, http};"), ["http", "lock"]);
    assert!(names_crate("use tokio::sync;", "tokio") && names_crate("x: tokio::T", "tokio"));
    let paths = |tree: &str| -> Vec<String> {
        let paths = expand(tree).into_iter();
        paths.map(|path| path.join("::")).collect()
    };
    assert_eq!(paths("a::{b, c::{D, e}}"), ["a::b", "a::c::D", "a::c::e"]);
    let edge = |to: &[&str]| to.iter().map(ToString::to_string).collect();
    let graph = [
        ("a", edge(&["b"])),
        ("b", edge(&["c"])),
        ("c", edge(&["a"])),
        ("d", edge(&["a"])),
    ];
    let graph = graph.map(|(from, to)| (from.to_owned(), to)).into();
    let expected: Vec<BTreeSet<String>> = vec![edge(&["a", "b", "c"])];
    assert_eq!(circles(&graph), expected);
    assert_eq!(function_name("    pub(super) async fn f<T>("), Some("f"));
    assert_eq!(function_name("    let g = some_fn (x);"), None);
    assert!(!names_crate("use mytokio::sync; a::tokio::b", "tokio"));
}
