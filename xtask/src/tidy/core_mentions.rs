//! Rule: the core computes; its code names no file, network, clock, environment or format. A derive
//! that a feature turns on (`cfg_attr`) is no format.

use super::{
    Rule,
    source::{Source, bracketed, items, leading_word, words},
};

const CORE: &[&str] = &["crates/tamegrad/src"];

const STD_MODULES: &[&str] = &["fs", "net", "time", "env", "io"];

const CRATES: &[&str] = &["serde"];

#[cfg(test)]
const GUARD: &str = "crates/tamegrad/src/guard.rs";

pub(super) const RULE: Rule = Rule {
    hint: "take the value as an argument and do this in the crate that calls the core",
    find,
    #[cfg(test)]
    cases: &[
        (GUARD, "use std::fs;\nlet t = std::time::Instant::now();\n", &[1, 2]),
        (GUARD, "use std::{\n    fmt,\n    io::{self, Read},\n    env,\n};\n", &[1, 1]),
        (GUARD, "use std::net::TcpStream;\n", &[1]),
        (GUARD, "#[derive(serde::Serialize)]\nstruct A;\n", &[1]),
        (GUARD, "#[cfg_attr(feature = \"x\", derive(serde::Serialize))]\nstruct A;\n", &[]),
        (GUARD, "#[cfg_attr(a, b)]\n#[derive(serde::Serialize)]\nstruct A;\n", &[2]),
        (GUARD, "use std::fmt;\nuse std::collections::{BTreeMap, VecDeque};\n", &[]),
        (GUARD, "//! Knows no `serde` and no std::fs.\nlet s = \"std::io\";\n", &[]),
        (GUARD, "use std::iter;\nuse my_std::fs;\n", &[]),
        ("crates/tamegrad-lab/src/lib.rs", "use std::fs;\n", &[]),
    ],
};

/// Finds paths into these modules, also within `use std::{...}`, and into these crates.
fn find(source: &Source) -> Vec<(usize, String)> {
    if !source.is_below(CORE) {
        return Vec::new();
    }
    let conditional = conditional_attributes(&source.code);
    let of_std = words(&source.code, "std")
        .flat_map(|offset| modules_at(&source.code, offset).map(move |name| (offset, name)))
        .filter(|(_, name)| STD_MODULES.contains(name))
        .map(|(offset, name)| (offset, format!("std::{name}")));
    let of_crates = CRATES
        .iter()
        .flat_map(|name| words(&source.code, name).map(|offset| (offset, (*name).to_owned())))
        .filter(|(offset, _)| !conditional.iter().any(|range| range.contains(offset)));
    of_std
        .chain(of_crates)
        .map(|(offset, name)| (source.line_at(offset), format!("`{name}` in the core")))
        .collect()
}

/// Where the attributes stand that a condition turns on.
fn conditional_attributes(code: &str) -> Vec<std::ops::Range<usize>> {
    let start = "#[cfg_attr";
    let attributes = code.match_indices(start).filter_map(|(offset, _)| {
        let inner = bracketed(&code[offset + start.len()..])?;
        Some(offset..offset + start.len() + inner.len())
    });
    attributes.collect()
}

/// The modules named right after the `std` at `offset`: one, or those of a group.
fn modules_at(code: &str, offset: usize) -> impl Iterator<Item = &str> {
    let after = code[offset + "std".len()..].trim_start().strip_prefix("::").unwrap_or_default();
    let after = after.trim_start();
    let list = bracketed(after).map_or_else(|| vec![after], items);
    list.into_iter().map(leading_word)
}
