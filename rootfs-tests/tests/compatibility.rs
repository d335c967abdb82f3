//! docs/compatibility.md names a test for everything that it claims. A name that no test has any
//! more makes this one red, and so does a claim without a name.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rootfs_tests::workspace;

/// The sources of every crate, without what was built from them.
fn sources(dir: &Path, all: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        let hidden = name.to_string_lossy().starts_with('.') || name == "target";
        if entry.file_type().unwrap().is_dir() && !hidden {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// The function behind each `#[test]`.
fn marked(source: &str) -> impl Iterator<Item = &str> {
    source.split("#[test]").skip(1).filter_map(|text| {
        let name = text.split_once("fn ")?.1;
        name.split(['(', '<']).next()
    })
}

/// The names in the tables of the suites with a harness of their own.
fn listed<'s>(source: &'s str, table: &str) -> Vec<&'s str> {
    let parts = source.split(table).skip(1);
    let lists = parts.filter_map(|text| text.split_once(");").map(|(list, _)| list));
    lists.flat_map(|list| list.split(',').map(str::trim)).collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// The cells of the table's rows that are about a field.
fn rows(document: &str) -> Vec<Vec<&str>> {
    let cells = |line: &'_ str| -> bool { line.starts_with('|') && !line.starts_with("|---") };
    let rows = document.lines().filter(|line| cells(line));
    let rows = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect());
    rows.filter(|row: &Vec<&str>| row.first() != Some(&"field")).collect()
}

#[test]
fn every_claim_of_compatibility_has_its_test() {
    let root = workspace::root();
    let mut all = Vec::new();
    sources(&root, &mut all);
    let mut tests: BTreeSet<&str> = BTreeSet::new();
    for source in &all {
        tests.extend(marked(source));
        for table in ["tests!(", "suite!("] {
            tests.extend(listed(source, table).into_iter().filter(|name| is_name(name)));
        }
    }
    assert!(tests.len() > 400, "only {} tests were found", tests.len());
    let document = fs::read_to_string(root.join("docs/compatibility.md")).unwrap();
    let rows = rows(&document);
    assert!(rows.len() > 70, "only {} rows were found", rows.len());
    for row in rows {
        let [field, ours, runc, crun, names] = row.as_slice() else {
            panic!("not five cells: {row:?}");
        };
        for cell in [ours, runc, crun] {
            let known =
                ["yes", "partly: ", "no", "ignored", "not "].iter().any(|w| cell.starts_with(w));
            assert!(known, "{field}: {cell:?}");
        }
        let names: Vec<&str> = names.split('`').map(str::trim).filter(|n| !n.is_empty()).collect();
        assert!(!names.is_empty(), "{field}: no test");
        for name in names {
            assert!(tests.contains(name), "{field}: there is no test {name:?}");
        }
    }
}
