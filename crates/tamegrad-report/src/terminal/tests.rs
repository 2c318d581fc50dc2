//! Tests of what a person reads in the terminal.

use tamegrad::SignName;
use tamegrad::causes::{Cause, CauseName, Ground};
use tamegrad::{
    Guard, LayerId, Layout, Measure, Observation, Origin, Place, Quantity, RunFacts, Severity, Step,
};

use super::*;
use crate::check::{exploded, fix_report, healthy, recovered, sign};
use crate::text::visible_width;

fn told(guard: &Guard, style: &Style) -> String {
    diagnosis(&guard.diagnosis(), guard.run(), style)
}

#[test]
fn an_exploded_run() {
    insta::assert_snapshot!(told(&exploded(), &Style::plain(100)), @"
    EXPLODED  the run ended with NaN or Inf (160 steps seen)
    When           step 150
    Where          layers.3; backward gain of layers.3: 41 (usually 1.7)
    First NaN/Inf  the loss, at step 152; the inputs were still finite
    Why            An activation that grows faster than its input (activation) in layers.3
                   - largest gain of layers.3: 41

    Loss           ▂▂▂▂▂▂▂▂▂▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁█×××  0.555 to 4,200, log
                                                         onset at step 150 ^
    Gradient norm  ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁█×××  2.01 to 1.71e6, log
                                                         onset at step 150 ^

    Signs
      Loss fluctuates wildly                     quiet
      The loss is NaN                            ALARM      step 152      8 times
        - loss: NaN
        - NaN and Inf elements in the gradients: 6
      Metric stalls or deteriorates              too early  needs 3 more
      An update changes much of a weight matrix  ALARM      step 150      2 times
        - update ratio of layers.5.linear.weight: 0.8 (usually 0.00201)
      A gradient norm has jumped                 ALARM      step 150      2 times
        - gradient norm of layers.5.linear.weight: 900 (usually 1)
        - standard deviations above its mean (log scale): 56.3 (limit 6)
      The learning rate has to come down a lot   quiet

    Chain of gains at step 151
      forward   1.02 × 0.98 × 1.1 × [38] × 0.97 × [0.4] = 16.2
      backward  1.2 × 1.01 × [41] × 1 × 1.04 × 0.95 = 49.1
      layers.3  forward 38 (calm mean 1.9), backward 41 (calm mean 1.7)
      layers.5  forward 0.4 (calm mean 0.4), backward 1.2 (calm mean 1.2)

    Remedies, best first (* treats the cause)
     1. *  batch-norm-before    batch norm before the activation (resets the scale at every layer,
                                before the activation)
     2. *  batch-norm-after     batch norm after the activation (resets the scale at every layer, after
                                the activation)
     3. *  bounded-activation   relu in layers.3 (the slope no longer grows with the input)
     4.    skip-step            run the guard in protect mode (it skips non-finite steps, scales spikes,
                                lowers the learning rate and rewinds)
     5.    clip-global-norm     clip by global norm at 2.4 (the usual gradient norm, 2.4)
     6.    clip-tensor-norm     clip each tensor by norm at 0.98 (caps each tensor at its share of the
                                usual norm; calm layers are unaffected)
     7.    clip-value           clip each element at 3 (caps every element, but changes the direction of
                                the gradient)
     8.    lower-learning-rate  reduce the learning rate to 0.015 (0.05 at onset) (shortens every step
                                to 0.3 of its length)
        and 7 more; all are in `remedies` of the JSON
    ");
}

#[test]
fn other_causes_have_a_line_each() {
    let guard = exploded();
    let mut given = guard.diagnosis();
    let rate = Measure::new(Quantity::LearningRate, 0.5);
    let evidence = vec![rate, Measure::new(Quantity::Loss, 9.0)];
    for name in [CauseName::LearningRate, CauseName::Data] {
        given.causes.push(Cause::new(name, Ground::DriftingGains, evidence.clone()));
    }
    let text = diagnosis(&given, guard.run(), &Style::plain(100));
    let lines: Vec<&str> = text.lines().skip(6).take(3).collect();
    assert_eq!(
        lines,
        [
            "Less likely    Learning rate too high (learning-rate); learning rate: 0.5; loss: 9",
            "               A bad batch (data); learning rate: 0.5; loss: 9",
            "",
        ]
    );
}

#[test]
fn numbers_told_with_the_place_are_not_told_again() {
    let guard = exploded();
    let gain = |value| Measure::new(Quantity::LargestGain, value);
    let layer = Place::Layer(LayerId(3));
    for (place, of_cause, where_and_why) in [
        (layer, vec![gain(41.0)], "layers.3; largest gain: 41 |"),
        (layer, vec![gain(38.0), gain(41.0)], "layers.3; largest gain: 41 | - largest gain: 38"),
        (
            Place::Run,
            vec![gain(41.0)],
            "unknown: no layer or tensor stands out | - largest gain: 41",
        ),
    ] {
        let mut given = guard.diagnosis();
        given.origin = Some(Origin::new(place, vec![gain(41.0)]));
        given.causes[0].evidence = of_cause;
        let head = head(&given, guard.run(), &Style::plain(100));
        let place = head[2].trim_start_matches("Where").trim_start();
        let numbers: Vec<&str> = head[5..].iter().map(|line| line.trim()).collect();
        let told = format!("{place} | {}", numbers.join(" "));
        assert_eq!(told.trim_end(), where_and_why);
    }
}

#[test]
fn a_place_without_a_name_is_told_in_words() {
    let guard = exploded();
    let outside = "outside the model, in the loss: all outputs of the pass are finite and of usual \
                   size, ";
    for (place, told, why) in [
        (
            Place::Loss,
            format!("{outside}but the loss is not finite"),
            "nothing in the model; check the loss function",
        ),
        (
            Place::LossGradient,
            format!("{outside}but the gradient that the loss sends back is not finite"),
            "nothing in the model; check the loss function",
        ),
        (Place::Data, "in the data".to_owned(), "unknown: the numbers fit no known cause"),
        (
            Place::Data,
            "in the data, which reaches layers.3".to_owned(),
            "unknown: the numbers fit no known cause",
        ),
    ] {
        let mut given = guard.diagnosis();
        let reached = told.contains("reaches").then_some(LayerId(3));
        given.origin = Some(Origin { reached, ..Origin::new(place, vec![]) });
        given.causes.clear();
        let head = head(&given, guard.run(), &Style::plain(1000));
        assert_eq!(head[2], format!("{:15}{told}", "Where"));
        assert!(head[4].starts_with(&format!("{:15}{why}", "Why")), "{}", head[4]);
    }
}

#[test]
fn all_remedies_that_treat_the_cause_are_shown_and_five_others() {
    let guard = exploded();
    let all = guard.diagnosis().remedies;
    for (treating, others, rows, last) in [
        (0, 5, 5, None),
        (0, 6, 5, Some("    and 1 more; all are in `remedies` of the JSON")),
        (7, 5, 12, None),
        (7, 8, 12, Some("    and 3 more; all are in `remedies` of the JSON")),
    ] {
        let mut given = guard.diagnosis();
        given.remedies = all[..treating + others].to_vec();
        for (index, proposal) in given.remedies.iter_mut().enumerate() {
            proposal.treats_cause = index < treating;
        }
        let lines = remedies(&given, &Style::plain(1000));
        assert_eq!(lines.len(), 1 + rows + last.iter().len(), "{lines:?}");
        let marked = lines.iter().filter(|line| line.contains(". *")).count();
        assert_eq!(marked, treating, "{lines:?}");
        let more = lines.last().map(String::as_str).filter(|line| line.contains(" more; "));
        assert_eq!(more, last);
    }
}

#[test]
fn a_healthy_run() {
    insta::assert_snapshot!(told(&healthy(), &Style::plain(100)), @r"
    HEALTHY  no alarm (160 steps seen)
    Loss           █████▇▇▇▆▆▆▆▅▅▅▅▅▅▄▄▄▄▄▄▃▃▃▃▃▃▃▂▂▂▂▂▂▂▂▂▂▂▁▁▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁  0.504 to 2.5
    Gradient norm  █▅▅▄███▆▅▃▄█▃███▆▇▁▇▇▄▃▇▁▅▄▂▅▆▆▂▄█▇▆█▄██▆█▁▄█▆█▆█▇▇▇▇▇▆██▆█▄  2.01 to 2.99
    Signs          too early for metric-stalls; the others quiet
    Gains          product of all layers: forward 0.811, backward 2.04 (step 150)
    ");
}

#[test]
fn the_line_of_signs_names_what_is_not_quiet() {
    use Severity::Strain;
    for (spikes, metric, line) in [
        ((None, 0, None), (None, 0, None), "all quiet"),
        ((None, 0, None), (None, 0, Some(3)), "too early for metric-stalls; the others quiet"),
        (
            (None, 0, Some(80)),
            (None, 0, Some(1)),
            "too early for metric-stalls, gradient-spikes; the others quiet",
        ),
        (
            (Some(Strain), 2, None),
            (None, 0, None),
            "gradient-spikes (strain, 2 times, from step 1,200); the others quiet",
        ),
        (
            (Some(Strain), 1, None),
            (None, 0, Some(3)),
            "gradient-spikes (strain, once, from step 1,200); too early for metric-stalls; \
             the others quiet",
        ),
    ] {
        let mut given = healthy().diagnosis();
        for summary in &mut given.signs {
            *summary = match summary.sign {
                SignName::GradientSpikes => sign(SignName::GradientSpikes, spikes),
                SignName::MetricStalls => sign(SignName::MetricStalls, metric),
                other => sign(other, (None, 0, None)),
            };
        }
        assert_eq!(strains(&given), line);
        given.seen = tamegrad::diagnosis::Seen::Steps(0);
        assert_eq!(strains(&given), "nothing was recorded");
    }
}

#[test]
fn a_run_of_which_only_the_loss_is_known() {
    let mut guard = Guard::new(Layout::default(), RunFacts::default(), Default::default());
    for step in 0..3 {
        let loss = Some(if step < 2 { 2.0 } else { f64::NAN });
        guard.observe(&Observation { step: Step(step), loss, ..Observation::default() }, &[]);
    }
    let text = told(&guard, &Style::plain(100));
    let head: Vec<&str> = text.lines().take(17).collect();
    insta::assert_snapshot!(head.join("\n"), @"
    EXPLODED  the run ended with NaN or Inf (3 steps seen)
    When           step 2
    Where          unknown: no layer or tensor stands out
    First NaN/Inf  the loss, at step 2
    Why            unknown: the numbers fit no known cause
    Check first    data: NaN, Inf or corrupt rows in the batch, targets longer than their inputs
                   number type: does the same batch stay finite in float32?
                   log(0), sqrt(0), a norm of zeros, a division by 0, in the value or in the gradient
                   alone
                   an empty average: all labels ignored, no positive sample, an empty mask
                   a mask that hides every entry of a row, or torch.where around a NaN
                   a kernel or compiler: does the same batch stay finite without compilation, with plain
                   attention?
                   the optimizer's eps, which is 0 in float16 when it is below 6e-8
                   the learning rate: was it scaled to the batch and to the number of devices?

    Loss           ▁▁×  2 to 2
    ");
}

#[test]
fn the_table_of_trials() {
    let report = fix_report(&exploded());
    let text = trials(&report.trials, Some("bounded-activation"), &Style::plain(100));
    insta::assert_snapshot!(text, @r"
       remedy              change                            verdict   metric  seconds
       clip-global-norm    clip by global norm at 2.4        exploded  NaN     3.25
       batch-norm-before   batch norm before the activation  healthy   0.91    6.5
    *  bounded-activation  relu in layers.3                  healthy   0.95    4
    * chosen: bounded-activation
    ");
    assert_eq!(trials(&[], None, &Style::plain(100)), "no remedy was tried\n");
    let none = trials(&report.trials[..1], None, &Style::plain(100));
    assert_eq!(none.lines().last(), Some("no remedy was chosen"));
}

#[test]
fn narrow_lines_hold_what_can_be_broken() {
    for width in [60, 72, 100] {
        for line in told(&exploded(), &Style::plain(width)).lines() {
            assert!(visible_width(line) <= width, "wider than {width}: {line:?}");
        }
    }
}

#[test]
fn colours_only_when_asked_for_and_each_ends_in_its_line() {
    for guard in [exploded(), healthy(), recovered()] {
        let plain = told(&guard, &Style::plain(100));
        assert!(!plain.contains('\x1b'), "{plain}");
        let coloured = told(&guard, &Style { colour: true, width: 100 });
        assert!(coloured.contains("\x1b["), "{coloured}");
        let stripped: String = strip(&coloured);
        assert_eq!(stripped, plain, "colours change no text");
        for line in coloured.lines() {
            let (mut open, mut rest) = (false, line);
            while let Some((_, after)) = rest.split_once("\x1b[") {
                let (code, after) = after.split_once('m').expect("a whole sequence");
                assert_eq!(code == "0", open, "begun and reset in turn: {line:?}");
                open = code != "0";
                rest = after;
            }
            assert!(!open, "not reset: {line:?}");
        }
    }
}

fn strip(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or("").to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn the_verdict_of_a_run_that_recovered() {
    let text = told(&recovered(), &Style::plain(100));
    assert_eq!(
        text.lines().next(),
        Some("RECOVERED  the loss recovered after an alarm (200 steps seen)")
    );
    assert!(text.contains("When           step 150\n"), "{text}");
}
