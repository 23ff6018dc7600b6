//! The checked-in header against what the sources say.

use std::path::Path;

/// Set it to have the header written.
const UPDATE: &str = "TIDEWIRE_UPDATE_HEADER";

#[test]
fn the_header_is_fresh() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = crate_dir.join("../include/tidewire.h");
    let config = cbindgen::Config::from_file(crate_dir.join("cbindgen.toml")).unwrap();
    let mut made = Vec::new();
    cbindgen::generate_with_config(crate_dir, config).unwrap().write(&mut made);
    let made = tidy(&String::from_utf8(made).unwrap());
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, made).unwrap();
        return;
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let same = there.lines().zip(made.lines()).take_while(|(a, b)| a == b).count();
    assert!(
        there == made,
        "include/tidewire.h differs from the sources at line {}; run with {UPDATE}=1 and look at the difference",
        same + 1
    );
}

/// The parts of comments that concern only Rust are left out.
fn tidy(header: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let mut skipping = false;
    for line in header.lines() {
        let text = line.trim();
        if text == "* # Safety" {
            skipping = true;
            // The empty line before it goes too.
            if out.last().is_some_and(|l| l.trim() == "*") {
                out.pop();
            }
        }
        skipping &= text != "*/";
        if !skipping {
            out.push(line.trim_end());
        }
    }
    out.join("\n") + "\n"
}
