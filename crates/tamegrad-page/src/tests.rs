//! Pages and figures as a whole: well-formed, escaped, small, and complete.

use std::collections::BTreeSet;

use roxmltree::{Document, Node};
use tamegrad::logs::{History, Sample, diagnose};
use tamegrad::{Chain, Diagnosis, LayerId, Link, Names, Origin, Place, Step};
use tamegrad_report::log::LogRun;

use crate::{Action, ActionKind, RunView, Width, figures, overlays, page, short_names};

/// What a name may try.
const EVIL: &str = "<img src=x onerror=\"alert(1)\">'&\u{1b}[2J\u{202e}\u{0}</style></svg>";

/// Numbers that look like noise, from 0 to 1.
fn noise(seed: u64) -> f64 {
    let mixed = (seed.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((mixed ^ (mixed >> 32)) >> 11) as f64 / (1_u64 << 53) as f64
}

fn series(steps: impl Iterator<Item = i64>, value: impl Fn(i64) -> f64) -> Vec<Sample> {
    steps.map(|step| Sample { step, value: value(step) }).collect()
}

/// Everything that a view borrows.
struct Made {
    diagnosis: Diagnosis,
    loss: Vec<Sample>,
    norm: Vec<Sample>,
    rate: Vec<Sample>,
    ratios: Vec<(String, Vec<Sample>)>,
    tensors: Vec<(String, Vec<Sample>)>,
    actions: Vec<Action>,
}

/// A run of 60 records whose loss is NaN from step 40 on, with two tensors and a chain of gains.
fn exploded(name: &str) -> Made {
    let broken = |step: i64, value: f64| if step < 40 { value } else { f64::NAN };
    let loss = series(0..60, |step| broken(step, 2.0 - 0.01 * step as f64));
    let norm = series(0..60, |step| broken(step, 1.0 + (step % 3) as f64));
    let tensors: Vec<(String, Vec<Sample>)> = ["fc1.weight", name]
        .iter()
        .map(|of| ((*of).to_owned(), series(0..60, |step| broken(step, 1.0 + (step % 5) as f64))))
        .collect();
    let link = |index, gain| Link {
        layer: LayerId(index),
        forward: Some(gain),
        backward: Some(gain * 2.0),
        first_inner: LayerId(index),
        only_normalises: false,
    };
    let found = diagnose(&History { loss: &loss, gradient_norm: &norm, ..History::default() });
    let diagnosis = Diagnosis {
        chain: Some(Chain { step: Step(40), links: vec![link(0, 1.0), link(1, 38.0)], ends: None }),
        origin: Some(Origin {
            place: Place::Layer(LayerId(1)),
            reached: None,
            evidence: Vec::new(),
        }),
        names: Names {
            tensors: Vec::new(),
            layers: vec!["fc1".to_owned(), name.to_owned()],
            inputs: Vec::new(),
        },
        ..found
    };
    Made {
        diagnosis,
        loss,
        norm,
        rate: series(0..60, |_| 0.1),
        ratios: vec![("all parameters".to_owned(), series(0..60, |step| broken(step, 1e-3)))],
        tensors,
        actions: vec![Action { step: 41, kind: ActionKind::Skip, text: name.to_owned() }],
    }
}

impl Made {
    fn view<'a>(&'a self, path: &'a str) -> RunView<'a> {
        let log = LogRun {
            loss: Some(("loss", &self.loss)),
            grad_norm: Some((path, &self.norm)),
            ..LogRun::of(path, "csv", &self.diagnosis)
        };
        RunView {
            learning_rate: &self.rate,
            update_ratios: &self.ratios,
            tensors: &self.tensors,
            actions: &self.actions,
            ..RunView::of(log)
        }
    }
}

/// The page as XML, which is stricter than HTML: only void elements and bare attributes differ.
fn as_xml(page: &str) -> String {
    let mut text =
        page.strip_prefix("<!DOCTYPE html>").expect("HTML").replace(" open>", " open=\"\">");
    let mut from = 0;
    while let Some(at) = text[from..].find("<meta ") {
        let end = from + at + text[from + at..].find('>').expect("an end");
        text.insert(end, '/');
        from = end;
    }
    text
}

fn ids<'a>(document: &'a Document<'_>) -> Vec<&'a str> {
    document.descendants().filter_map(|node| node.attribute("id")).collect()
}

fn check(page: &str) {
    let xml = as_xml(page);
    let document = Document::parse(&xml).unwrap_or_else(|error| panic!("{error}: {xml}"));
    let ids = ids(&document);
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "{ids:?}");
    let elements = || document.descendants().filter(Node::is_element);
    for node in elements() {
        let name = node.tag_name().name();
        assert!(!["script", "link", "iframe", "object", "base", "form"].contains(&name), "{name}");
        for attribute in node.attributes() {
            let (key, value) = (attribute.name(), attribute.value());
            assert!(!key.starts_with("on") && key != "style" && key != "src", "{key} of {name}");
            if key == "href" {
                let target = value.strip_prefix('#');
                assert!(
                    target.is_some_and(|id| unique.contains(id))
                        || value.starts_with("data:image/png;base64,"),
                    "{value}"
                );
            }
            if key == "aria-labelledby" {
                assert!(value.split(' ').all(|id| unique.contains(id)), "{value}");
            }
        }
        if name == "figure" && node.attribute("class") != Some("code") {
            let has = |name: &str| node.descendants().any(|inner| inner.tag_name().name() == name);
            assert!(has("title") && has("desc") && has("table") && has("figcaption"));
        }
    }
    assert_eq!(elements().filter(|node| ["h1"].contains(&node.tag_name().name())).count(), 1);
}

#[test]
fn a_page_is_well_formed_and_nothing_from_a_log_is_markup() {
    let made = exploded(EVIL);
    let alone = page(&[made.view(EVIL)]);
    check(&alone);
    let plain = exploded("fc2");
    check(&page(&[plain.view("runs/a/given"), plain.view("runs/a/fixed"), made.view(EVIL)]));
    for text in [&alone, &figures(&made.view(EVIL)).iter().map(|f| f.file(Width::Wide)).collect()] {
        assert!(!text.contains("<img"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{0}']));
        assert!(text.contains("&lt;img src=x"));
    }
}

#[test]
fn a_page_says_what_is_known_in_its_order() {
    let page = page(&[exploded("fc2").view("runs/mlp")]);
    let mut at = 0;
    for text in [
        "The run ended with NaN or Inf after the alarm at step 40; it began in layer fc2.",
        "<h2>What happened</h2>",
        "onset, step 40",
        "<h2>Where</h2>",
        "Gradient norm by tensor",
        "Gains of the layers at step 40",
        "<h2>Updates</h2>",
        "<h2>Signs</h2>",
        "The loss is NaN",
        "<h2>Why</h2>",
        "<h2>What to do</h2>",
        "torch.nn.utils.clip_grad_norm_",
        "<h2>What the guard did</h2>",
        "<h2>What is not shown</h2>",
    ] {
        let found = page[at..].find(text).unwrap_or_else(|| panic!("`{text}` behind {at}: {page}"));
        at += found;
    }
}

#[test]
fn what_was_not_logged_is_said_and_not_drawn() {
    let loss = series(0..60, |_| 1.0);
    let diagnosis = diagnose(&History { loss: &loss, ..History::default() });
    let log = LogRun { loss: Some(("loss", &loss)), ..LogRun::of("a.csv", "csv", &diagnosis) };
    let view = RunView::of(log);
    let names: Vec<&str> = figures(&view).iter().map(|figure| figure.name).collect();
    assert_eq!(names, ["loss"]);
    let page = page(&[view]);
    check(&page);
    for wanted in
        ["there is no heat map", "they are not plotted", "The learning rate was not logged"]
    {
        assert!(page.contains(wanted), "{wanted}");
    }
}

#[test]
fn figures_are_files_of_their_own() {
    let made = exploded("fc2");
    let view = made.view("runs/mlp");
    let all = figures(&view);
    let names: Vec<&str> = all.iter().map(|figure| figure.name).collect();
    let wanted = ["loss", "gradient-norm", "tensors", "gains", "update-ratio", "learning-rate"];
    assert_eq!(names, wanted);
    let several = overlays(&[view, view], &["a".to_owned(), "b".to_owned()]);
    for figure in all.iter().chain(&several) {
        for width in [Width::Wide, Width::Narrow] {
            let file = figure.file(width);
            let document = Document::parse(&file).unwrap_or_else(|error| panic!("{error}: {file}"));
            let root = document.root_element();
            let size = |name| -> f64 {
                root.attribute(name).and_then(|text| text.parse().ok()).expect("a size")
            };
            assert_eq!(size("width"), if width == Width::Wide { 960.0 } else { 358.0 });
            // Nothing lies outside.
            for node in root.descendants() {
                let number = |name| node.attribute(name).and_then(|text| text.parse::<f64>().ok());
                for (near, far, end) in [("x", "width", "width"), ("y", "height", "height")] {
                    let from = number(near).unwrap_or(0.0);
                    let to = from + number(far).filter(|_| node != root).unwrap_or(0.0);
                    assert!(from >= 0.0 && to <= size(end) + 0.1, "{}: {node:?}", figure.name);
                }
            }
        }
    }
}

#[test]
fn a_curve_and_a_chain_look_like_this() {
    let made = exploded("fc2");
    let all = figures(&made.view("runs/mlp"));
    let file = |name: &str| {
        let figure = all.iter().find(|figure| figure.name == name).expect("the figure");
        figure.element(Width::Narrow, name).replace("><", ">\n<")
    };
    insta::assert_snapshot!("loss", file("loss"));
    insta::assert_snapshot!("gains", file("gains"));
}

#[test]
fn a_page_of_100000_steps_and_300_tensors_is_below_1_mb() {
    let spiky = |seed: u64, step: i64| {
        let noisy = (2.0 * noise(seed << 32 | step as u64) - 1.0).exp();
        if step == 77_777 { 1e7 * noisy } else { noisy }
    };
    // As a run folder keeps them: the smallest and the largest norm of each 100 steps.
    let steps = || (0..100_000).filter(|step| step % 100 == 0 || step % 100 == 77);
    let tensors: Vec<(String, Vec<Sample>)> = (0..300)
        .map(|i| (format!("transformer.h.{i}.mlp.c_proj.weight"), series(steps(), |s| spiky(i, s))))
        .collect();
    let link = |index: usize| Link {
        layer: LayerId(index),
        forward: Some(4.0 * noise(index as u64)),
        backward: Some(4.0 * noise(1000 + index as u64)),
        first_inner: LayerId(index),
        only_normalises: false,
    };
    let loss = series(0..100_000, |step| spiky(1000, step));
    let layers = (0..300).map(|i| format!("transformer.h.{i}")).collect();
    let diagnosis = Diagnosis {
        chain: Some(Chain { step: Step(9), links: (0..300).map(link).collect(), ends: None }),
        names: Names { layers, ..Names::default() },
        ..diagnose(&History { loss: &loss[..1000], ..History::default() })
    };
    let made = Made {
        diagnosis,
        norm: series(0..100_000, |step| spiky(1001, step)),
        rate: series(0..100_000, |step| 1e-3 * noise(step as u64)),
        ratios: vec![("all parameters".to_owned(), series(0..100_000, |s| spiky(1002, s)))],
        loss,
        tensors,
        actions: (0..4000)
            .map(|i| Action { step: i * 25, kind: ActionKind::Skip, text: "no update".to_owned() })
            .collect(),
    };
    let page = page(&[made.view("runs/gpt")]);
    check(&page);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}

#[test]
fn runs_are_told_apart_by_what_their_paths_do_not_share() {
    let made = exploded("fc2");
    for (paths, wanted) in [
        (&["runs/a"][..], &["runs/a"][..]),
        (&["runs/a/given", "runs/a/fixed"], &["given", "fixed"]),
        (&["a/log.csv", "b/log.csv"], &["a/log.csv", "b/log.csv"]),
        (&["x/a", "x/a"], &["a", "a"]),
    ] {
        let views: Vec<RunView<'_>> = paths.iter().map(|path| made.view(path)).collect();
        assert_eq!(short_names(&views), wanted);
    }
}
