//! The guard: watching changes nothing, protecting saves a run and leaves a healthy one alone.

use tamegrad::{Mode, Verdict};
use tamegrad_lab::recipe;

use crate::{parse, run, shipped};

/// Small nets of each kind, with batch norm and every optimizer, so that each path is compared.
const NETS: [&str; 4] = [
    "[data.digits]\n\
     [model.mlp]\ndepth = 3\nwidth = 16\nnormalisation = { kind = \"batch\" }\n\
     [optimizer.adam]\nlearning_rate = 0.002\n",
    "[data.digits]\n\
     [model.conv]\nchannels = [4]\nkernel = 3\ndense = [16]\n\
     normalisation = { kind = \"layer\", place = \"after\" }\n\
     [optimizer.adamw]\nlearning_rate = 0.002\nweight_decay = 0.01\n",
    "[data.temporal-order]\nsamples = 640\nlength = 12\n\
     [model.rnn]\nhidden = 12\n\
     [optimizer.rmsprop]\nlearning_rate = 0.001\n",
    "[data.blobs]\nsamples = 600\ncenters = 3\nfeatures = 2\nstd = 1.0\n\
     [model.mlp]\ndepth = 2\nwidth = 8\nresidual = true\n\
     [optimizer.sgd]\nlearning_rate = 0.01\nmomentum = 0.9\n\
     [clip]\nby = \"global-norm\"\nlimit = 5.0\n",
];

#[test]
fn a_healthy_run_has_the_same_weights_to_the_bit_whatever_the_guard_may_do() {
    for net in NETS {
        let text = format!("name = \"t\"\nseed = 3\n{net}[training]\nbatch = 32\nepochs = 4\n");
        let recipe = parse(&text);
        let runs = [Mode::Off, Mode::Observe, Mode::Protect].map(|mode| run(&recipe, mode));
        assert_eq!(runs[0].weights_hash, runs[1].weights_hash, "observed: {net}");
        assert_eq!(runs[0].weights_hash, runs[2].weights_hash, "protected: {net}");
        assert_eq!(runs[2].run.actions(), [], "{net}");
    }
}

#[test]
fn another_seed_has_other_weights() {
    let text = |seed| {
        format!("name = \"t\"\nseed = {seed}\n{}[training]\nbatch = 32\nepochs = 1\n", NETS[3])
    };
    let hash = |seed| run(&parse(&text(seed)), Mode::Off).weights_hash;
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}

#[test]
fn protect_saves_the_run_that_explodes_without_it() {
    let file = recipe::read(&shipped("exploding-digits.toml")).unwrap();
    let bare = run(&file.recipe, Mode::Off);
    let protected = run(&file.recipe, Mode::Protect);
    assert!(matches!(bare.diagnosis.verdict, Verdict::Exploded | Verdict::Exploding));
    assert!(protected.diagnosis.verdict.is_good(), "{:?}", protected.diagnosis.verdict);
    assert!(protected.metric > bare.metric + 0.2, "{} {}", bare.metric, protected.metric);
    let (_, last) = protected.run.actions().last().expect("actions");
    assert!(last.learning_rate > 0.1, "saved by freezing: {}", last.learning_rate);
}
