//! Every dependency's licence is one that a permissively licensed program may be linked with, those for other
//! platforms too, which cargo downloads where they are missing.

use std::process::Command;

use serde_json::Value;

const ACCEPTED: [&str; 11] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CDLA-Permissive-2.0",
    "0BSD",
    "Unlicense",
];

/// `A OR B` needs one that is accepted, `A AND B` needs both.
fn accepted(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let plain = expression.replace(['(', ')'], "");
    if expression.contains('(') {
        return expression
            .split(" AND ")
            .all(|part| accepted(&part.replace(['(', ')'], "")));
    }
    plain.split(" OR ").any(|choice| {
        choice
            .split(" AND ")
            .all(|one| ACCEPTED.contains(&one.trim()))
    })
}

#[test]
fn every_dependency_is_permissively_licensed() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "the list of packages is not complete");
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(accepted))
        .map(|package| format!("{} {}", package["name"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "not accepted: {refused:#?}");
}

#[test]
fn an_expression_is_judged_by_its_choices() {
    assert!(accepted("MIT OR GPL-3.0"));
    assert!(accepted("Apache-2.0 AND ISC"));
    assert!(accepted("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!accepted("GPL-3.0"));
    assert!(!accepted("MIT AND GPL-3.0"));
    assert!(!accepted("(MIT OR Apache-2.0) AND GPL-3.0"));
}
