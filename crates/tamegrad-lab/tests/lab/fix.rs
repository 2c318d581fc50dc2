//! The search for the fix.

use std::sync::atomic::{AtomicBool, Ordering};

use tamegrad::Verdict;
use tamegrad_lab::fix::{EarlierTrial, News};
use tamegrad_lab::recipe::RecipeFile;
use tamegrad_lab::{fix, recipe};

use crate::shipped;

#[test]
fn the_least_force_that_works_is_trained_to_the_end_and_its_recipe_stays_healthy() {
    let file = recipe::read(&shipped("exploding-regression.toml")).unwrap();
    let found = fix(&file, &[], &AtomicBool::new(false), &mut |_| {}).unwrap();
    let forces: Vec<_> = found.trials.iter().map(|t| t.proposal.remedy.force()).collect();
    assert!(forces.is_sorted(), "{forces:?}");
    let chosen = found.chosen.expect("a fix");
    assert_eq!(chosen.trained.diagnosis.verdict, Verdict::Healthy);
    assert!(chosen.trained.metric > 0.95, "{}", chosen.trained.metric);
    let healthy = found.trials.iter().filter(|trial| trial.verdict == Verdict::Healthy);
    let best = healthy.clone().map(|trial| trial.metric).fold(f64::MIN, f64::max);
    let first = healthy.clone().find(|trial| trial.metric >= best - 0.02).expect("a healthy trial");
    assert_eq!(first.proposal, chosen.proposal);
    let fixed = recipe::parse(&chosen.text, None).unwrap();
    let again = crate::run(&fixed, tamegrad::Mode::Observe);
    assert_eq!(again.weights_hash, chosen.trained.weights_hash);
    assert!(chosen.diff.lines().any(|line| line.starts_with('+')), "{}", chosen.diff);
}

#[test]
fn a_search_that_goes_on_tries_only_what_was_not_tried() {
    let file = recipe::read(&shipped("exploding-regression.toml")).unwrap();
    let (mut tried, cancel) = (Vec::new(), AtomicBool::new(false));
    fix(&file, &[], &cancel, &mut |news| {
        let News::Tried(trial) = news else { return };
        tried.push(EarlierTrial {
            remedy: trial.proposal.label(),
            verdict: trial.verdict,
            metric: trial.metric,
            steps: trial.steps,
            seconds: trial.seconds,
            learns: trial.learns,
        });
        // As if it were killed after the third.
        cancel.store(tried.len() == 3, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(tried.len(), 3);
    let mut again = Vec::new();
    let found = fix(&file, &tried, &AtomicBool::new(false), &mut |news| {
        if let News::Tried(trial) = news {
            again.push(trial.proposal.label());
        }
    })
    .unwrap();
    assert!(!again.is_empty() && tried.iter().all(|known| !again.contains(&known.remedy)));
    let whole = fix(&file, &[], &AtomicBool::new(false), &mut |_| {}).unwrap();
    let labels = |found: &tamegrad_lab::Fix| {
        found.trials.iter().map(|trial| (trial.proposal.label(), trial.verdict)).collect::<Vec<_>>()
    };
    assert_eq!(labels(&found), labels(&whole));
    let text = |found: tamegrad_lab::Fix| found.chosen.map(|chosen| chosen.text);
    assert_eq!(text(found), text(whole));
}

#[test]
fn a_healthy_recipe_is_left_alone() {
    let text = "name = \"t\"\n\
        [data.circles]\nsamples = 400\nnoise = 0.05\nfactor = 0.3\n\
        [model.mlp]\ndepth = 2\nwidth = 16\n\
        [optimizer.adam]\nlearning_rate = 0.01\n\
        [training]\nbatch = 28\nepochs = 15\n";
    let recipe = crate::parse(text);
    let file = RecipeFile { text: text.into(), path: "t.toml".into(), recipe };
    let found = fix(&file, &[], &AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!(found.given.diagnosis.verdict, Verdict::Healthy);
    assert!(found.given.metric > 0.9, "{}", found.given.metric);
    assert!(found.trials.is_empty() && found.chosen.is_none());
}

#[test]
fn cancelling_stops_at_the_next_step_and_keeps_what_was_seen() {
    let file = recipe::read(&shipped("healthy-digits.toml")).unwrap();
    let cancel = AtomicBool::new(false);
    let found = fix(&file, &[], &cancel, &mut |news| {
        if matches!(news, News::Step(_, progress, _) if progress.step == 5) {
            cancel.store(true, Ordering::Relaxed);
        }
    });
    let found = found.unwrap();
    assert_eq!(found.given.run.record().rows().len(), 5);
    assert!(found.cancelled);
}
