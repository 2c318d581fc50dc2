//! Modules import one another without circles, and those of the core only from the layers below.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

use super::source::Source;

/// The modules of the core from the ground up: each imports only from those before it.
const CORE_LAYERS: &[&str] = &[
    "rules",
    "running",
    "cadence",
    "observe",
    "evidence",
    "inspection",
    "doc",
    "chain",
    "finding",
    "decision",
    "step",
    "batch",
    "borne",
    "record",
    "run",
    "jump",
    "risk",
    "signs",
    "first",
    "origin",
    "causes",
    "remedies",
    "rate_limit",
    "ladder",
    "diagnosis",
    "preflight",
    "critical",
    "logs",
    "guard",
    "explain",
];
const CORE: &str = "crates/tamegrad";

/// A module by its path in the crate, such as `["signs", "title"]`; the crate's root is empty.
type Module = Vec<String>;

/// What each module imports, tests left out.
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// The circles of every crate and the imports of the core that point up, a line each.
pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut crates: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        if let Some((root, _)) = source.path.split_once("/src/") {
            crates.entry(root).or_default().push(source);
        }
    }
    let mut found = Vec::new();
    for (root, files) in crates {
        let graph = graph(root, &files);
        found.extend(circles(&graph).into_iter().map(|circle| {
            let names: Vec<String> = circle.iter().map(|module| named(module)).collect();
            format!(
                "{root}: {} import one another in a circle; hint: move what they share to a \
                 module that imports neither",
                names.join(", ")
            )
        }));
        if root == CORE {
            found.extend(pointing_up(&graph));
        }
    }
    found
}

fn named(module: &[String]) -> String {
    format!("`{}`", module.join("::"))
}

fn pointing_up(graph: &Graph) -> Vec<String> {
    let rank = |module: &Module| CORE_LAYERS.iter().position(|layer| *layer == module[0]);
    let mut found = Vec::new();
    for (module, imports) in graph.iter().filter(|(module, _)| !module.is_empty()) {
        if rank(module).is_none() {
            found.push(format!(
                "{CORE}: {} has no layer; hint: give it its place in xtask/src/tidy/modules.rs",
                named(module)
            ));
        }
        for import in imports.iter().filter(|import| !import.is_empty()) {
            if rank(import) > rank(module) {
                found.push(format!(
                    "{CORE}: {} imports {}, which stands above it; hint: the order is in \
                     xtask/src/tidy/modules.rs",
                    named(module),
                    named(import)
                ));
            }
        }
    }
    found
}

fn graph(root: &str, files: &[&Source]) -> Graph {
    let parsed: BTreeMap<Module, syn::File> = files
        .iter()
        .filter_map(|source| {
            let path = source.path.strip_prefix(root)?.strip_prefix("/src/")?;
            Some((module_of(path), syn::parse_file(&source.text).ok()?))
        })
        .collect();
    let tests: BTreeSet<Module> =
        parsed.iter().flat_map(|(module, file)| test_modules(module, file)).collect();
    let known: BTreeSet<&Module> =
        parsed.keys().filter(|module| !tests.contains(*module)).collect();
    let names = parsed.get(&vec![]).map(names_of_the_root).unwrap_or_default();
    let module_with = |path: &Vec<String>| {
        let lengths = (0..=path.len()).rev();
        lengths.map(|length| path[..length].to_vec()).find(|path| known.contains(path))
    };
    // A name that the root has from elsewhere stands for the module that it is from.
    let followed = |path: &Vec<String>| match path.first().map(String::as_str) {
        Some("*") => names.values().cloned().collect(),
        Some(name) if names.contains_key(name) && !known.contains(&vec![name.to_owned()]) => {
            vec![names[name].clone()]
        }
        _ => vec![path.clone()],
    };
    known
        .iter()
        .map(|module| {
            let mut paths = Paths { module, found: Vec::new() };
            paths.visit_file(&parsed[*module]);
            let imports = paths.found.iter().flat_map(followed);
            let imports = imports.filter_map(|path| module_with(&path));
            ((*module).clone(), imports.filter(|import| import != *module).collect())
        })
        .collect()
}

/// What the root of a crate has by `use`, and where in the crate it is from.
fn names_of_the_root(root: &syn::File) -> BTreeMap<String, Vec<String>> {
    let mut names = BTreeMap::new();
    for item in &root.items {
        if let syn::Item::Use(item) = item {
            name_all(&[], &item.tree, &mut names);
        }
    }
    names
}

fn name_all(before: &[String], tree: &syn::UseTree, names: &mut BTreeMap<String, Vec<String>>) {
    let with = |name: &syn::Ident| match name.to_string().as_str() {
        "self" | "crate" => before.to_vec(),
        name => [before, &[name.to_owned()]].concat(),
    };
    match tree {
        syn::UseTree::Path(path) => name_all(&with(&path.ident), &path.tree, names),
        syn::UseTree::Name(name) => {
            let path = with(&name.ident);
            names.extend(path.last().cloned().map(|name| (name, path)));
        }
        syn::UseTree::Rename(name) => {
            names.insert(name.rename.to_string(), with(&name.ident));
        }
        // Its names stand in another file; no root of ours has one.
        syn::UseTree::Glob(_) => {}
        syn::UseTree::Group(group) => {
            group.items.iter().for_each(|tree| name_all(before, tree, names));
        }
    }
}

/// The module of a file, given by its path in `src`.
fn module_of(path: &str) -> Module {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" | "main" => vec![],
        _ => path.split('/').map(str::to_owned).collect(),
    }
}

/// The modules in files of their own that a file declares for tests alone.
fn test_modules(module: &Module, file: &syn::File) -> Vec<Module> {
    let items = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(child) if child.content.is_none() && is_for_tests(&child.attrs) => {
            Some([&module[..], &[child.ident.to_string()]].concat())
        }
        _ => None,
    });
    items.collect()
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_test = |list: &syn::MetaList| list.tokens.to_string() == "test";
        attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(is_test)
    })
}

/// Collects the paths that begin in the crate.
struct Paths<'a> {
    module: &'a Module,
    found: Vec<Vec<String>>,
}

impl Paths<'_> {
    fn take(&mut self, path: &[String]) {
        let mut rest = path;
        let mut from = match rest.first().map(String::as_str) {
            Some("crate") => vec![],
            Some("self") => self.module.clone(),
            Some("super") => parent(self.module),
            _ => return,
        };
        rest = &rest[1..];
        while rest.first().is_some_and(|name| name == "super") {
            from.pop();
            rest = &rest[1..];
        }
        from.extend_from_slice(rest);
        self.found.push(from);
    }

    fn take_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.take_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.take(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.take(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.take(&[before, &["*".to_owned()]].concat()),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.take_tree(before, tree));
            }
        }
    }

    /// The paths in what a macro is given, which has no syntax tree. `before` is the path that goes on in
    /// each part, as in `crate::{a, b}`.
    fn take_tokens(&mut self, before: &[String], tokens: TokenStream) {
        let is_colon = |of: &TokenTree| matches!(of, TokenTree::Punct(of) if of.as_char() == ':');
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = &tokens[..];
        while let [first, after @ ..] = rest {
            rest = after;
            let mut path = match first {
                TokenTree::Ident(name) => [before, &[name.to_string()]].concat(),
                TokenTree::Group(group) => {
                    self.take_tokens(&[], group.stream());
                    continue;
                }
                _ => continue,
            };
            while let [one, two, next, after @ ..] = rest
                && is_colon(one)
                && is_colon(two)
            {
                match next {
                    TokenTree::Ident(name) => path.push(name.to_string()),
                    TokenTree::Group(group) => self.take_tokens(&path, group.stream()),
                    TokenTree::Punct(of) if of.as_char() == '*' => path.push("*".to_owned()),
                    _ => break,
                }
                rest = after;
            }
            self.take(&path);
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            syn::visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.take_tree(&[], &item.tree);
        }
    }

    fn visit_macro(&mut self, of: &'ast syn::Macro) {
        self.take_tokens(&[], of.tokens.clone());
        syn::visit::visit_macro(self, of);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.take(&names);
        syn::visit::visit_path(self, path);
    }
}

fn parent(module: &[String]) -> Module {
    module[..module.len().saturating_sub(1)].to_vec()
}

/// The groups of modules that reach one another. That a parent names its own children makes none.
fn circles(graph: &Graph) -> Vec<Vec<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        graph.keys().map(|module| (module, reached_from(module, graph))).collect();
    let mut left: BTreeSet<&Module> = graph.keys().collect();
    let mut found = Vec::new();
    while let Some(module) = left.pop_first() {
        let returns = |other: &&Module| reached[*other].contains(module);
        let circle: Vec<&Module> = reached[module].iter().copied().filter(returns).collect();
        if circle.len() > 1 {
            circle.iter().for_each(|module| {
                left.remove(*module);
            });
            found.push(circle.into_iter().cloned().collect());
        }
    }
    found
}

fn reached_from<'a>(module: &'a Module, graph: &'a Graph) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut todo = vec![module];
    while let Some(next) = todo.pop() {
        for import in graph.get(next).into_iter().flatten() {
            let is_child = import.len() > next.len() && import.starts_with(next);
            if !is_child && reached.insert(import) {
                todo.push(import);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> =
            files.iter().map(|(path, text)| Source::new(path, (*text).to_owned())).collect();
        check(&sources)
    }

    #[test]
    fn a_circle_is_named_however_it_is_written() {
        let back = [
            "use crate::a::X;",
            "use super::a;",
            "fn f(x: crate::a::X) {}",
            "use crate::{c, a::{self, X}};",
        ];
        for text in back {
            let files = [("crates/x/src/a.rs", "use crate::b::c::Y;"), ("crates/x/src/b.rs", text)];
            let found = found(&files);
            assert_eq!(found.len(), 1, "{text}");
            assert!(found[0].starts_with("crates/x: `a`, `b` import one another"), "{found:?}");
        }
    }

    #[test]
    fn parents_and_children_tests_and_other_crates_make_none() {
        let files = [
            ("crates/x/src/lib.rs", "mod a;\npub use a::X;"),
            ("crates/x/src/a.rs", "mod b;\n#[cfg(test)]\nmod tests;\npub use self::b::X;"),
            ("crates/x/src/a/b.rs", "use super::Y;\n#[cfg(test)]\nmod t { use crate::c::Z; }"),
            ("crates/x/src/a/tests.rs", "use crate::c::Z;"),
            ("crates/x/src/c.rs", "use crate::a::X; use other::a::c;"),
        ];
        assert_eq!(found(&files), Vec::<String>::new());
    }

    #[test]
    fn no_import_of_the_core_points_up_by_a_detour() {
        let root = "pub use guard::{Guard, run as drive};\npub use self::guard::Mode as How;";
        let detours = [
            "use crate::Guard;",
            "use crate::{How};",
            "use super::Guard;",
            "fn f() { crate::drive(); }",
            "use crate::*;",
            "fn f() -> String { format!(\"{}\", crate::guard::SIZE) }",
            "fn f() -> String { format!(\"{}\", f(super::guard::SIZE)) }",
            "fn f() -> Vec<u8> { vec![crate::Guard::SIZE; 2] }",
            "macro_rules! m { () => { use crate::{run, guard::Guard}; } }",
        ];
        for text in detours {
            let files = [
                ("crates/tamegrad/src/lib.rs", root),
                ("crates/tamegrad/src/record.rs", text),
                ("crates/tamegrad/src/guard.rs", ""),
            ];
            let found = found(&files);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with("crates/tamegrad: `record` imports `guard`"), "{found:?}");
        }
    }

    #[test]
    fn an_import_of_the_core_that_points_up_is_named() {
        let files = [
            ("crates/tamegrad/src/record.rs", "use crate::guard::Guard;"),
            ("crates/tamegrad/src/guard.rs", ""),
            ("crates/tamegrad/src/new.rs", ""),
        ];
        let found = found(&files);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("crates/tamegrad: `new` has no layer"), "{found:?}");
        assert!(found[1].starts_with("crates/tamegrad: `record` imports `guard`"), "{found:?}");
    }
}
