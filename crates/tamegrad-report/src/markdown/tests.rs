//! Tests of the Markdown report.

use super::*;
use crate::check::{exploded, fix_report, healthy};
use crate::json::DiagnosisReport;

const DIFF: &str =
    "--- recipe.toml\n+++ fixed.toml\n@@ -3 +3 @@\n-activation = \"exp\"\n+activation = \"relu\"\n";

#[test]
fn the_report_of_a_fix() {
    let guard = exploded();
    let text = fix(&fix_report(&guard), &guard.diagnosis(), guard.run(), DIFF);
    insta::assert_snapshot!(text, @r#"
    # Exploded at step 150 in `layers.3`, fixed by `bounded-activation`

    ## The run as given

    | what | found | shown by |
    | --- | --- | --- |
    | verdict | exploded | the run ended with NaN or Inf |
    | steps seen | 160 steps |  |
    | held-out metric | 0.1 |  |
    | onset (step) | 150 | the first alarm |
    | origin | `layers.3` | backward gain of layers.3: 41 (usually 1.7) |
    | cause | An activation that grows faster than its input (activation) in layers.3 |  |

    ## Why

    Causes that the numbers support, best supported first.

    |  | cause | numbers |
    | --- | --- | --- |
    | 1 | An activation that grows faster than its input (activation) in layers.3 | backward gain of layers.3: 41 (usually 1.7); largest gain of layers.3: 41 |

    ## Signs

    | sign | state | first | count | numbers |
    | --- | --- | --- | --- | --- |
    | Loss fluctuates wildly | quiet |  |  |  |
    | The loss is NaN | ALARM | step 152 | 8 times | loss: NaN; NaN and Inf elements in the gradients: 6 |
    | Metric stalls or deteriorates | too early | needs 3 more |  |  |
    | An update changes much of a weight matrix | ALARM | step 150 | 2 times | update ratio of layers.5.linear.weight: 0.8 (usually 0.00201) |
    | A gradient norm has jumped | ALARM | step 150 | 2 times | gradient norm of layers.5.linear.weight: 900 (usually 1); standard deviations above its mean (log scale): 56.3 (limit 6) |
    | The learning rate has to come down a lot | quiet |  |  |  |

    ## The chain of gains at step 151

    The factor by which each layer multiplies the signal on its way from the input to the loss (forward), and the gradient on its way back (backward). Layers with a factor outside 0.5 to 2 are in bold.

    ```text
    forward   1.02 × 0.98 × 1.1 × [38] × 0.97 × [0.4] = 16.2
    backward  1.2 × 1.01 × [41] × 1 × 1.04 × 0.95 = 49.1
    layers.3  forward 38 (calm mean 1.9), backward 41 (calm mean 1.7)
    layers.5  forward 0.4 (calm mean 0.4), backward 1.2 (calm mean 1.2)
    ```

    | layer | forward | calm mean | backward | calm mean |
    | --- | --- | --- | --- | --- |
    | `layers.0` | 1.02 | 1.02 | 0.95 | 0.95 |
    | `layers.1` | 0.98 | 0.98 | 1.04 | 1.04 |
    | `layers.2` | 1.1 | 1.1 | 1 | 1 |
    | **`layers.3`** | 38 | 1.9 | 41 | 1.7 |
    | `layers.4` | 0.97 | 0.97 | 1.01 | 1.01 |
    | **`layers.5`** | 0.4 | 0.4 | 1.2 | 1.2 |
    | product of all layers | 16.2 |  | 49.1 |  |

    ## Remedies, best first

    |  | remedy | change | treats | why |
    | --- | --- | --- | --- | --- |
    | 1 | `batch-norm-before` | batch norm before the activation | the cause | resets the scale at every layer, before the activation |
    | 2 | `batch-norm-after` | batch norm after the activation | the cause | resets the scale at every layer, after the activation |
    | 3 | `bounded-activation` | relu in layers.3 | the cause | the slope no longer grows with the input |
    | 4 | `skip-step` | run the guard in protect mode | the effect | it skips non-finite steps, scales spikes, lowers the learning rate and rewinds |
    | 5 | `clip-global-norm` | clip by global norm at 2.4 | the effect | the usual gradient norm, 2.4 |
    | 6 | `clip-tensor-norm` | clip each tensor by norm at 0.98 | the effect | caps each tensor at its share of the usual norm; calm layers are unaffected |
    | 7 | `clip-value` | clip each element at 3 | the effect | caps every element, but changes the direction of the gradient |
    | 8 | `lower-learning-rate` | reduce the learning rate to 0.015 (0.05 at onset) | the effect | shortens every step to 0.3 of its length |
    | 9 | `weight-decay` | decoupled weight decay of 0.1 | the effect | keeps the weights, and with them the gains, from drifting up |
    | 10 | `l2-penalty` | L2 penalty of strength 0.001 | the effect | keeps the weights, and with them the gains, from drifting up |
    | 11 | `l1-penalty` | L1 penalty of strength 1e-4 | the effect | keeps the weights, and with them the gains, from drifting up |
    | 12 | `smaller-batch` | batches of 16 samples | the effect | smaller batches avoid sharp minima |
    | 13 | `reinitialise-he` | He initialisation in all layers | the effect | the gains start at 1, at any depth |
    | 14 | `reinitialise-orthogonal` | orthogonal initialisation in all layers | the effect | the gains start at 1, at any depth |
    | 15 | `fewer-layers` | 2 hidden layers | the effect | fewer layers multiply the gradient |

    ## Trials

    Each remedy on its own, the mildest first, in a short run with the same seed.

    | remedy | change | verdict | metric | seconds |  |
    | --- | --- | --- | --- | --- | --- |
    | `clip-global-norm` | clip by global norm at 2.4 | exploded | NaN | 3.25 |  |
    | `batch-norm-before` | batch norm before the activation | healthy | 0.91 | 6.5 |  |
    | `bounded-activation` | relu in layers.3 | healthy | 0.95 | 4 | **chosen** |

    ## The fix

    `bounded-activation`: relu in layers.3.

    ```diff
    --- recipe.toml
    +++ fixed.toml
    @@ -3 +3 @@
    -activation = "exp"
    +activation = "relu"
    ```

    ## How to run it

    `fixed.toml` next to this report is the recipe with the remedy; it runs on its own. In a checkout, write `cargo run --release --` instead of `tamegrad`.

    ```sh
    tamegrad train fixed.toml
    ```

    ## What was measured

    At each step of the run as given (160 steps seen): the loss, the gradient, and the gains of the layers (from probes). The metric is measured on held-out data; higher is better.

    | run | verdict | metric | weights hash |
    | --- | --- | --- | --- |
    | as given | exploded | 0.1 |  |
    | fixed | healthy | 0.955 | `00c0ffee` |
    "#);
}

#[test]
fn a_healthy_run_is_left_alone() {
    let guard = healthy();
    let given = DiagnosisReport { metric: Some(0.97), ..DiagnosisReport::from(&guard.diagnosis()) };
    let report = FixReport { given, trials: vec![], chosen: None, fixed: None };
    let text = fix(&report, &guard.diagnosis(), guard.run(), "");
    let headings: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(
        headings,
        [
            "# Healthy: nothing was changed",
            "## The run as given",
            "## Signs",
            "## The chain of gains at step 150",
            "## The fix",
            "## What was measured",
        ]
    );
    assert!(text.contains("\nThe run gave no reason to change the recipe.\n"), "{text}");
}

#[test]
fn when_nothing_holds_it_says_so() {
    let guard = exploded();
    let report = FixReport { chosen: None, fixed: None, ..fix_report(&guard) };
    let text = fix(&report, &guard.diagnosis(), guard.run(), "");
    assert!(text.starts_with("# Exploded at step 150 in `layers.3`, not fixed\n"), "{text}");
    assert!(text.contains("\nNone of the remedies that were tried kept the run"), "{text}");
    assert!(!text.contains("fixed.toml"), "{text}");
}

#[test]
fn cells_and_fences_hold_what_is_in_them() {
    assert_eq!(table(&["a|b"], [vec!["x|y\nz".into()]]), "| a\\|b |\n| --- |\n| x\\|y z |\n");
    assert_eq!(fenced("diff", "a\n"), "```diff\na\n```\n");
    assert_eq!(fenced("diff", "````\n"), "`````diff\n````\n`````\n");
    assert_eq!(code("a`b"), "`a'b`");
}
