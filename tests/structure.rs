//! Keeps the dependency rule of `src/lib.rs`: arrows between the rooms point one way, and the lock core is
//! pure. Reads the sources, so that a forbidden import fails a test and not only a review.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms it may import. Who is not listed as importing a room does not.
const MAY_IMPORT: [(&str, &[&str]); 14] = [
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
    ("config", &["lock"]),
    ("logging", &[]),
    // Of the settings only what can change while it serves: `policy` and `tls`.
    (
        "http",
        &[
            "lock", "store", "shared", "resource", "registry", "metrics", "config",
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

/// The files of `http` that may import `config`.
const HTTP_FILES_WITH_SETTINGS: [&str; 2] = ["policy.rs", "tls.rs"];

/// What the lock core may name besides its own modules: values, and nothing that acts.
const CORE_CRATES: [&str; 5] = ["std", "core", "serde", "smol_str", "thiserror"];

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
    let line = |line: &str| line.split("//").next().unwrap().to_owned();
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
        let code = code(&file);
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
    assert!(!names_crate("use mytokio::sync; a::tokio::b", "tokio"));
}
