//! The table of faults names tests that exist.

use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn every_test_that_the_table_of_faults_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let table = std::fs::read_to_string(root.join("tests/FAULTS.md")).expect("the table");
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    let (mut rows, mut wrong) = (0, Vec::new());
    for row in table.lines().filter(|l| l.starts_with("| ") && *l != "| fault | test |") {
        rows += 1;
        let tests: Vec<(&str, &str)> = row.split('`').skip(1).step_by(2).filter_map(|t| t.split_once("::")).collect();
        if tests.is_empty() {
            wrong.push(format!("no test: {row}"));
        }
        for (path, name) in tests {
            let read = || std::fs::read_to_string(root.join(path)).unwrap_or_default();
            let text = files.entry(path).or_insert_with(read);
            if !["fn", "def"].iter().any(|word| text.contains(&format!("{word} {name}("))) {
                wrong.push(format!("{path}::{name}"));
            }
        }
    }
    assert!(rows > 50, "{rows} rows");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
