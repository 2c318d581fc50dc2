//! Rule: the core crate depends on nothing but the crates on a short list.

use super::{Rule, source::Source};

const MANIFEST: &str = "crates/tamegrad/Cargo.toml";

/// What the core may use; tests and benches may use more.
const ALLOWED: &[&str] = &["tamegrad-stats"];

/// What it may use behind a feature: serde derives how a guard's state is taken apart, which by hand
/// would be a second copy of every type; the format is the integration's.
const ALLOWED_IF_OPTIONAL: &[&str] = &["serde"];

pub(super) const RULE: Rule = Rule {
    hint: "the core knows no framework and no format: do this in the crate that uses it",
    find,
    #[cfg(test)]
    cases: &[
        (MANIFEST, "[dependencies]\ntamegrad-stats.workspace = true\n", &[]),
        (MANIFEST, "[dependencies]\nserde = \"1\"\nburn.workspace = true\n", &[2, 3]),
        (MANIFEST, "[dependencies]\nserde = { version = \"1\", optional = true }\n", &[]),
        (MANIFEST, "[dependencies]\nburn = { version = \"1\", optional = true }\n", &[2]),
        (MANIFEST, "[dependencies]\n\"rand\" = { version = \"1\" } # chance\n", &[2]),
        (MANIFEST, "[dependencies]\ntamegrad-stats = { features = [\n  \"a=b\",\n] }\n", &[]),
        (MANIFEST, "[dependencies.burn]\nversion = \"1\"\n", &[1]),
        (MANIFEST, "[target.'cfg(unix)'.dependencies]\nlibc = \"1\"\n", &[2]),
        (MANIFEST, "[target.'cfg(unix)'.dependencies.libc]\nversion = \"1\"\n", &[1]),
        (MANIFEST, "[dev-dependencies]\nproptest = \"1\"\n[lints]\nworkspace = true\n", &[]),
        (MANIFEST, "[dev-dependencies.proptest]\nversion = \"1\"\n", &[]),
        (MANIFEST, "[dependencies]\n# serde = \"1\"\n", &[]),
        ("crates/tamegrad-burn/Cargo.toml", "[dependencies]\nburn = \"1\"\n", &[]),
    ],
};

/// Reads the `[dependencies]` tables of the core's manifest, those of single targets included.
fn find(source: &Source) -> Vec<(usize, String)> {
    if source.path != MANIFEST {
        return Vec::new();
    }
    dependencies(&source.text)
        .into_iter()
        .filter(|(_, name, is_optional)| {
            !(ALLOWED.contains(name) || *is_optional && ALLOWED_IF_OPTIONAL.contains(name))
        })
        .map(|(line, name, _)| (line, format!("the core depends on `{name}`")))
        .collect()
}

/// Line and name of each dependency, and whether its line says that it is optional. Knows as much
/// TOML as a manifest formatted by hand has.
fn dependencies(manifest: &str) -> Vec<(usize, &str, bool)> {
    let mut found = Vec::new();
    let mut in_table = false;
    let mut depth = 0_usize;
    for (index, line) in manifest.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if depth == 0 && line.starts_with('[') {
            let header = line.trim_matches(['[', ']']).trim();
            let (table, name) = match header.rsplit_once("dependencies.") {
                Some((before, name)) => (format!("{before}dependencies"), Some(name)),
                None => (header.to_owned(), None),
            };
            let ours = table == "dependencies" || table.ends_with(".dependencies");
            in_table = ours && name.is_none();
            found.extend(name.filter(|_| ours).map(|name| (index + 1, unquoted(name), false)));
            continue;
        }
        if let (true, 0, Some((key, value))) = (in_table, depth, line.split_once('=')) {
            let name = unquoted(key.split('.').next().unwrap_or(key));
            found.push((index + 1, name, value.contains("optional = true")));
        }
        let opened = line.matches(['[', '{']).count();
        let closed = line.matches([']', '}']).count();
        depth = (depth + opened).saturating_sub(closed);
    }
    found
}

fn unquoted(name: &str) -> &str {
    name.trim().trim_matches(['"', '\''])
}
