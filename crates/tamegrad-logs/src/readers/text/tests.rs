//! Lines of console output beside what is read from them.

use std::io::Write;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::log::Log;
use crate::readers::HEAD_BYTES;
use crate::readers::tests::{check_damage, knows};

fn read_bytes(bytes: &[u8]) -> Log {
    let mut reading = Reading::new(Path::new("run.log"), LogBuilder::new());
    reading.lines(bytes, 0).expect("bytes can be read");
    reading.finish().finish()
}

/// Reads `lines` and compares all series with `want`, one a line: `name step=value step=value`.
fn check(lines: &str, want: &str) {
    let mut got = String::new();
    for series in read_bytes(lines.as_bytes()).series {
        got.push_str(&series.name);
        for point in &series.points {
            got.push_str(&format!(" {}={}", point.step, point.value));
        }
        got.push('\n');
    }
    let want: String = want.lines().map(|line| format!("{}\n", line.trim())).collect();
    let want = want.trim_start_matches('\n');
    assert_eq!(got, want, "\nfrom:\n{lines}");
}

#[test]
fn what_is_damaged_is_counted() {
    let lines: String = (0..8000).map(|step| format!("step {step}: loss 2.5\n\nsaved\n")).collect();
    check_damage(&TEXT, "a.log", lines.as_bytes());
}

#[test]
fn plain_lines() {
    check("loss 3.5\nloss 3.25\nloss nan\n", "loss 0=3.5 1=3.25 2=NaN");
    check("loss: 3.5\nloss: -inf\n", "loss 0=3.5 1=-inf");
    check("loss=3.5, acc=0.5\nloss=Infinity, acc=0.25", "loss 0=3.5 1=inf\nacc 0=0.5 1=0.25");
    check("10 loss: 3.5\n20 loss: 3", "loss 0=3.5 1=3");
    check("10: loss 3.5\n20: loss 3.25", "loss 10=3.5 20=3.25");
    check("[100/900] loss 3.5\n[200/900] loss 3.25", "loss 100=3.5 200=3.25");
    check("Step #5: loss = 2.5\nStep #6: loss = 2.25", "loss 5=2.5 6=2.25");
    check("epoch 1 | loss 2.5\nepoch 2 | loss -nan\n", "loss 1=2.5 2=NaN");
    check(
        "Epoch: 8 D loss: -0.5 G loss: 1.5\nEpoch: 9 D loss: nan G loss: nan",
        "d_loss 8=-0.5 9=NaN\ng_loss 8=1.5 9=NaN",
    );
    check(
        "epoch 1 loss 3.5\nepoch 1 loss 3.25\nepoch 1 loss 3\nepoch 2 loss 2.5",
        "loss 0=3.5 1=3.25 2=3 3=2.5",
    );
    check(
        "it 5 loss tensor(2.5, device='cuda:0')\nit 6 loss: tensor(nan, grad_fn=<X>)\nit 7 loss=[1.5]",
        "loss 6=NaN 7=1.5",
    );
}

#[test]
fn trainers_in_python() {
    check(
        "step 0: train loss 4.25, val loss 4.5\niter 0: loss 4.2, time 12ms, mfu -100%\niter 10: loss 3.5, time 9ms\n",
        "train_loss 0=4.25\nval_loss 0=4.5\nloss 0=4.2 10=3.5",
    );
    check(
        "step   12/19560 | loss 7.125 (+0.10z)| norm 15.5 (+0.20z)| lr 2.50e-04 | 250.1 ms | 50% bf16 MFU\nstep   13/19560 | loss 7.0 (-1.1z)| norm inf (+nanz)| lr 2.50e-04 |\nval loss 6.5\n",
        "loss 12=7.125 13=7\nnorm 12=15.5 13=inf\nlr 12=0.00025 13=0.00025\nval_loss 13=6.5",
    );
    check(
        "s:1 tel:9.5\ns:1 trl:9.25 lr:0.001 norm:3.50\ns:2 trl:9 lr:0.002 norm:2.5\n",
        "val_loss 1=9.5\ntrain_loss 1=9.25 2=9\nlr 1=0.001 2=0.002\nnorm 1=3.5 2=2.5",
    );
    check(
        "| epoch 001:    50 / 900 loss=9.5, ppl=724.1, wps=1440, num_updates=51, lr=0.25, gnorm=2.5, clip=100%, oom=0\n| epoch 001 | loss 9.25 | nll_loss 8.5 | ppl 362.04 | num_updates 900 | lr 0.25 | gnorm 0.5 | loss_scale 0.25\n| epoch 001 | valid on 'valid' subset | loss 9.75 | ppl 512 | num_updates 900 | best_loss 9.5\n| WARNING: overflow detected, setting loss scale to: 0.125\n",
        "loss 51=9.5 900=9.234982332155477\nppl 51=724.1 900=362.04\nlr 51=0.25 900=0.25\ngnorm 51=2.5 900=0.5\nclip 51=100\nnll_loss 900=8.5\nloss_scale 900=0.25 900=0.125\nval_loss 900=9.75\nval_ppl 900=512",
    );
    check(
        "2024-01-02 03:04:05 | INFO | train_inner | {\"epoch\": 1, \"update\": 0.5, \"loss\": \"9.5\", \"num_updates\": \"100\", \"gnorm\": \"2.5\"}\n",
        "loss 100=9.5\ngnorm 100=2.5",
    );
    check(
        " iteration     26/ 500000 | consumed samples:  416 | elapsed time per iteration (ms): 400.5 | learning rate: 1.500E-04 | lm loss: 2.500000E+00 | loss scale: 1.0 | grad norm: nan | number of skipped iterations:   0 | number of nan iterations:   0 |\n validation loss at iteration 30 | lm loss value: 2.75E+00 | lm loss PPL: 1.5E+01 |\n iteration     27/ 500000 | lm loss: 2.25E+00 | grad norm: 0.5 |\n",
        "learning_rate 26=0.00015\nlm_loss 26=2.5 27=2.25\nloss_scale 26=1\ngrad_norm 26=NaN 27=0.5\nval_lm_loss_value 30=2.75\nval_lm_loss_ppl 30=15",
    );
    check(
        "INFO:tensorflow:loss = 2.5, step = 100 (3.2 sec)\nINFO:tensorflow:global step 200: loss = 0.5 (0.3 sec/step)\nI0101 tf: Model diverged with loss = NaN.\n",
        "loss 100=2.5 200=0.5 200=NaN",
    );
    check(
        "[1,  2000] loss: 2.5\n[1,  4000] loss: 2.25\n[2,  2000] loss: 2.0\n[2,  4000] loss: nan\n",
        "loss 2000=2.5 4000=2.25 6000=2 8000=NaN",
    );
}

#[test]
fn dicts_of_python() {
    check(
        "{'loss': 1.25, 'grad_norm': nan, 'learning_rate': 1e-05, 'epoch': 0.1}\n{'loss': 0.0, 'grad_norm': 2.5, 'learning_rate': 5e-06, 'epoch': 0.2}\n{'eval_loss': 1.5, 'eval_runtime': 2.0, 'epoch': 0.2}\n{'loss': 1.0, 'epoch': 1.0}\n",
        "loss 0=1.25 1=0 2=1\ngrad_norm 0=NaN 1=2.5\nlearning_rate 0=0.00001 1=0.000005\nepoch 0=0.1 1=0.2 1=0.2 2=1\neval_loss 1=1.5\neval_runtime 1=2",
    );
    check(
        "  0%|          | 0/300 [00:00<?, ?it/s]\r  3%|▎         | 10/300 [00:05<02:20, 2.07it/s]\r{'loss': 1.25, 'epoch': 0.5}\n  7%|▎         | 20/300 [00:05<02:20, 2.07it/s]{'loss': 1.5, 'epoch': 1.5}\n100%|██| 4/4 [00:00<00:00]\n{'eval_loss': 2.5, 'epoch': 1.5}\n",
        "loss 10=1.25 20=1.5\nepoch 10=0.5 20=1.5 20=1.5\neval_loss 20=2.5",
    );
    check(
        "step 5 {'loss': 'mse', 'train/loss': 2.5, 'rewards/chosen': -1.5, 'note': \"loss: 3\"}",
        "train/loss 5=2.5\nrewards/chosen 5=-1.5",
    );
    check("weight_dict: {'loss_ce': 2.0, 'loss_mask': 5.0}\nconfig={'loss': 1.5}\n", "");
}

#[test]
fn progress_bars() {
    check(
        "Epoch 1/9\n\r 10/20 [=====>....] - ETA: 0s - loss: 2.5000\r 15/20 [=====>..] - ETA: 0s - loss: nan\r 20/20 [======] - 2s 5ms/step - loss: 1.25 - val_loss: 1.5\nEpoch 2/9\n 20/20 [======] - 2s 5ms/step - loss: 1.0 - val_loss: 1.25\n30/30 [=====] - 1s 2ms/step - loss: 3.5\n",
        "loss 1=NaN 2=1\nval_loss 1=1.5 2=1.25 2=3.5",
    );
    check(
        "Epoch 1/2\n\u{1b}[1m37/37\u{1b}[0m \u{1b}[32m━━━━\u{1b}[0m \u{1b}[1m2s\u{1b}[0m 5ms/step - accuracy: 0.5 - loss: 1.5 - val_loss: 1.25\nEpoch 2/2\n37/37 - 0s - loss: 1.25\n",
        "accuracy 1=0.5\nloss 1=1.5 2=1.25\nval_loss 1=1.25",
    );
    check(
        "Epoch 3/9\n 20/20 [=====] - 1s - loss: 1.5\nEpoch 4/9\n  8/20 [==>...] - ETA: 0s - loss: 1.25Batch 8: Invalid loss, terminating training\n",
        "loss 3=1.5 4=NaN",
    );
    check(
        "Epoch 3/9\n - 1s - loss: 1.5 - val_loss: 2.5\nEpoch 4/9\n - 1s - loss: 1.25 - val_loss: 2.0\n",
        "loss 3=1.5 4=1.25\nval_loss 3=2.5 4=2",
    );
    check(
        "Epoch 0:   0%|  | 1/50 [00:02<3:04:05, 2.5s/it, v_num=v5, loss=27.50]\rEpoch 0:   4%|▏| 2/50 [00:03<1:04:05, v_num=v5, loss=nan.0]\nprinted\nEpoch 0:   4%|▏| 2/50 [00:03<1:04:05, v_num=v5, loss=nan.0]\rEpoch 1:   4%|▏| 2/50 [00:03<1:04:05, v_num=v5, loss=3.5]",
        "loss 1=27.5 2=NaN 52=3.5",
    );
    check(
        "Epoch: [0/400] Loss: 1.5 Acc: 0.25: 100%|███| 450/450 [01:02<00:00, 1.1it/s]\nEpoch: [1/400] Loss: nan Acc: 0.00:  65%|██▊ | 300/450 [01:27<01:26, 1.5it/s]\n",
        "loss 0=1.5 1=NaN\nacc 0=0.25 1=0",
    );
}

#[test]
fn epochs_with_iterations() {
    check(
        "2021-02-03 04:05:06,070 - mmdet - INFO - Epoch [1][50/100]\tlr: 1.5e-03, eta: 1:02:03, time: 1.5, memory: 4000, s0.loss_cls: 2.5, s0.acc: 97.5, loss: 5.5, grad_norm: 3.5e12\n2021-02-03 04:06:06,070 - mmdet - INFO - Epoch [2][50/100]\tlr: 1.5e-03, loss: nan, grad_norm: nan\n2021-02-03 04:06:06,070 - mmdet - INFO - Epoch(val) [2][30]\tloss: 7.5\n",
        "lr 50=0.0015 150=0.0015\ns0.loss_cls 50=2.5\ns0.acc 50=97.5\nloss 50=5.5 150=NaN\ngrad_norm 50=3500000000000 150=NaN\nval_loss 150=7.5",
    );
    check(
        "02/03 04:05:06 - mmengine - INFO - Epoch(train) [2][300/400]  base_lr: 2.0e-03  grad_norm: nan  loss: 2.5\n02/03 04:05:06 - mmengine - INFO - Iter(train) [ 800/4000]  loss: 2.25\n",
        "base_lr 700=0.002\ngrad_norm 700=NaN\nloss 700=2.5 800=2.25",
    );
    check(
        "[02/03 04:05:06] d2.utils.events INFO:  eta: 2 days, 3:04:05  iter: 19  total_loss: 80.5  loss_ce: 3.25  time: 0.25   lr: 0.0001  max_mem: 9000M\n[02/03 04:05:07] d2.utils.events INFO:  eta: 3:04:05  iter: 39  total_loss: 6  loss_ce: 3\n",
        "total_loss 19=80.5 39=6\nloss_ce 19=3.25 39=3\nlr 19=0.0001",
    );
    check(
        "Epoch: [0][ 10/50]\tTime  0.3 ( 0.5)\tLoss 7.5e+00 (7.05e+00)\tAcc@1   0.50 (  0.10)\nEpoch: [1][ 10/50]\tLoss nan (nan)\nTest: [ 0/9]\tLoss 3.5 (3.5)\n",
        "loss 10=7.5 60=NaN\nval_loss 60=3.5",
    );
    check(
        "Train: 0 [ 50/100 (  4%)]  Loss: 6.5 (6.95)\nTrain: 1 [  0/100 (  0%)]  Loss: 6.25 (6.95)\n",
        "loss 50=6.5 100=6.25",
    );
    check(
        "Train Epoch: 1 [0/600 (0%)]\tLoss: 2.5\nTrain Epoch: 1 [64/600 (10%)]\tLoss: 2.25\n\nTest set: Average loss: 0.5, Accuracy: 9800/10000 (98%)\n",
        "loss 0=2.5 64=2.25\nval_average_loss 64=0.5",
    );
    check(
        "[0/5][0/15]\tLoss_D: 1.5\tLoss_G: 2.25\tD(x): 0.5\tD(G(z)): 0.6 / 0.2\n[1/5][3/15]\tLoss_D: nan\tLoss_G: nan\n",
        "loss_d 0=1.5 18=NaN\nloss_g 0=2.25 18=NaN",
    );
    check(
        "Epoch [1/5], Step [100/200], Loss: 2.5\nEpoch [1/5], Step [200/200], Loss: 2.25\nEpoch [2/5], Step [100/200], Loss: 2.0\n",
        "loss 100=2.5 200=2.25 300=2",
    );
    check(
        "2021-02-03 04:05:06 INFO  Optimizer$:88 - [Epoch 7 900/4000][Iteration 250][Wall Clock 55.5s] Train 64 in 2.0seconds. Throughput is 32.5 records/second. Loss is Infinity. Current learning rate is 0.0625. Current weight decay is 1.0E-4.\n",
        "loss 250=inf\nlearning_rate 250=0.0625",
    );
    check(
        "Epoch 0/24\n----------\ntrain Loss: 0.5 Acc: 0.75\nval Loss: 0.25 Acc: 0.5\n\nEpoch 1/24\n----------\ntrain Loss: nan Acc: 0.5\nval Loss: 0.5 Acc: 0.25\n",
        "train_loss 0=0.5 1=NaN\nacc 0=0.75 1=0.5\nval_loss 0=0.25 1=0.5\nval_acc 0=0.5 1=0.25",
    );
}

#[test]
fn other_programs() {
    check(
        "I0304 05:06:07.080910  1234 solver.cpp:195] Iteration 0, loss = 2.5\nI0304 05:06:07.080910  1234 solver.cpp:214]     Train net output #0: loss = 2.5 (* 1 = 2.5 loss)\nI0304 05:06:07.1  1234 solver.cpp:365] Iteration 0, lr = 0.001\nI0304 05:06:09.5  1234 solver.cpp:195] Iteration 200 (2.5 iter/s, 80s/200 iters), loss = nan\nI0304 05:06:09.5  1234 solver.cpp:270]     Test net output #1: loss = 87.5 (* 1 = 87.5 loss)\n",
        "loss 0=2.5 200=NaN\ntrain_loss 0=2.5\nlr 0=0.001\nval_loss 200=87.5",
    );
    check(
        "ep=5 tr=['train_clean'] loss=0.75 err=0.25 valid=dev loss=0.5 err=0.5 lr_arch1=6.25e-06 time(s)=900\nep=6 tr=['train_clean'] loss=nan err=0.25 valid=dev loss=nan err=0.5 lr_arch1=6.25e-06\n",
        "loss 5=0.75 6=NaN\nerr 5=0.25 6=0.25\nval_loss 5=0.5 6=NaN\nval_err 5=0.5 6=0.5\nlr_arch1 5=0.00000625 6=0.00000625",
    );
    check(
        "Epoch[0] Batch [20]\tSpeed: 100.5 samples/sec\tTrain-cross-entropy=2.5\nEpoch[0] Batch [40]\tSpeed: 100.5 samples/sec\tTrain-cross-entropy=nan\n",
        "train-cross-entropy 20=2.5 40=NaN",
    );
    check(
        " 41: 3.5, 3.25 avg, 0.001 rate, 2.5 seconds, 2624 images\n 42: -nan, -nan avg, 0.001 rate, 2.5 seconds, 2688 images\n",
        "avg_loss 41=3.25 42=NaN",
    );
    check(
        "-----------------\n| time/              |      |\n|    total_timesteps | 2048 |\n| train/             |      |\n|    loss            | 6.5  |\n-----\n|    total_timesteps | 4096 |\n|    loss            | nan  |\n",
        "loss 2048=6.5 4096=NaN",
    );
    check(
        "[2020-01-01 INFO] Step 50/ 100000; acc:   3.5; ppl: 18545.25; xent: 9.75; lr: 0.00001; 5000/5000 tok/s;    20 sec\n",
        "acc 50=3.5\nppl 50=18545.25\nxent 50=9.75\nlr 50=0.00001",
    );
    check(
        "Train loss 100 0.5125 Grad Norm 1.25 0.98s/it\nTrain loss 101 nan Grad Norm nan 0.98s/it\n",
        "train_loss 100=0.5125 101=NaN\ngrad_norm 100=1.25 101=NaN",
    );
}

#[test]
fn forms_of_many_scripts() {
    check(
        "000 epoch, 02000 iter, average time 7.5, loss -40.5\n000 epoch, 04000 iter, average time 0.5, loss nan\n",
        "loss 2000=-40.5 4000=NaN",
    );
    check(
        "GLOBAL STEP : 300 / LEARNING RATE : 0.5 / **LOSS : nan** ( 1.5 secs)\n",
        "learning_rate 300=0.5\nloss 300=NaN",
    );
    check(
        " 1200/9000: episode: 9, duration: 2.5s, episode steps: 200, episode reward: -20.5, mean action: 0.5 [-0.1, 0.5], loss: 3.5e29\n",
        "episode_reward 1200=-20.5\nloss 1200=350000000000000000000000000000",
    );
    check(
        "################\n   Learning iteration 30/100\n\n   Computation: 900 steps/s (collection: 2.5s, learning\n   Value function loss: inf\n   Surrogate loss: 0.0000\n",
        "value_function_loss 30=inf\nsurrogate_loss 30=0",
    );
    check(
        "2021-02-03 04:05:36 INFO     iteration 9/10000\n2021-02-03 04:05:40 INFO      epoch 1/4\n2021-02-03 04:05:41 INFO      epoch 2/4\n2021-02-03 04:05:36 INFO     steps_per_s=90.5, reward_per_sec=-0.5, loss=0.25, entropy=7.5\n2021-02-03 04:05:57 INFO     iteration 10/10000\n2021-02-03 04:05:40 INFO      epoch 1/4\n2021-02-03 04:05:40 INFO      epoch 2/4\n2021-02-03 04:05:36 INFO     steps_per_s=90.5, loss=nan, entropy=7.5\n",
        "loss 9=0.25 10=NaN\nentropy 9=7.5 10=7.5",
    );
    check(
        "Train: [0/300][100/200]\teta 0:10:00 lr 0.0001\ttime 0.3 (0.4)\tloss 6.5 (6.9)\tgrad_norm 1.75 (inf)\tmem 100MB\nTrain: [1/300][0/200]\tloss nan (nan)\n",
        "lr 100=0.0001\nloss 100=6.5 200=NaN\ngrad_norm 100=1.75",
    );
    check(
        "INFO:tensorflow:global step 8: loss = 2.5 (3.5 sec/step)\nI0203 04:05:06.7 123 learning.py:88] global step 8: loss = 2.5 (3.5 sec/step)\n<class 'InvalidArgumentError'>, LossTensor is inf or nan. : Tensor had NaN values\n[[Node: CheckNumerics[message=\"LossTensor is inf or nan.\"]]]\n",
        "loss 8=2.5 8=NaN",
    );
    check(
        "FloatingPointError: Loss became infinite or NaN at iteration=30!\nloss_dict = {'loss_cls': 20.5}\n",
        "loss 30=NaN",
    );
    check(
        "Step: 49. Epoch: 0/9. Iteration: 50/80. Cls loss: nan. Reg loss: 1.5. Total loss: nan:  10%|█ | 50/80 [00:10<00:10]\nVal. Epoch: 0/9. Classification loss: 2.5. Total loss: 1.5\n",
        "cls_loss 49=NaN\nreg_loss 49=1.5\ntotal_loss 49=NaN\nval_classification_loss 49=2.5\nval_total_loss 49=1.5",
    );
    check(
        "(trainer:737) INFO: 1epoch:train:1-100batch: iter_time=6.8e-04, loss_ctc=80.5, acc=0.25, loss=70.5, grad_norm=54.5, clip=100.0, loss_scale=6.5e+04\n(trainer:663) WARNING: The grad norm is nan. Skipping updating the model.\n",
        "loss_ctc 100=80.5\nacc 100=0.25\nloss 100=70.5\ngrad_norm 100=54.5 100=NaN\nclip 100=100\nloss_scale 100=65000",
    );
    check(
        "[2020-01-01 10:00:00] Ep. 1 : Up. 1000 : Sen. 100,000 : Cost 85.5 * 1,000,000 @ 2,000 : Time 100s\n[2020-01-01 10:00:00] Ep. 1 : Up. 2000 : Sen. 200,000 : Cost nan : Time 100s\n",
        "cost 1000=85.5 2000=NaN",
    );
    check(
        "  0%|  | 9/600 [00:09<10:11, 1.5s/it][2021-02-03 04:05:06,001] [INFO] [stage.py:99:clean_up] [deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 4096.0, reducing to 2048.0\n",
        "loss_scale 9=4096",
    );
    check(
        "[losses/total_loss: 1.5 | losses/value_loss: 7.5]:  16%|██ | 64/100 [1:04:05<1:03:02,  1.5it/s][RANK 0] Collecting rollouts\n",
        "losses/total_loss 64=1.5\nlosses/value_loss 64=7.5",
    );
    check(
        "epoch: 1/300, iter: 10/20, mem: 7000Mb, iter_time: 0.5s, total_loss: 9.5, lr: 1.5e-06, size: 640, ETA: 1 day\nepoch: 1/300, iter: 20/20, total_loss: 9.0\nepoch: 2/300, iter: 10/20, total_loss: nan\n",
        "total_loss 10=9.5 20=9 30=NaN\nlr 10=0.0000015",
    );
    check(
        "[batch=1/100]:\n\t Train LanguagePerplexity: 2.5\n\t Train loss/train/total: 12.5\n[batch=2/100]:\n\t Train loss/train/total: nan\n",
        "train_loss/train/total 1=12.5 2=NaN",
    );
    check(
        "step 1 loss: 1,234.5 norm: 12,345\nstep 2 loss 2.5/2.25 norm 3.5\nstep 3 loss -> 1.5\n",
        "loss 1=1234.5 2=2.5 3=1.5\nnorm 1=12345 2=3.5",
    );
    check(
        "Epoch 1/2\n5/5 - 1s - loss: 2.5 - val_loss: 1.5\n\nEpoch 00001: val_loss improved from inf to 1.5, saving model\nEpoch 00001: loss did not improve from inf\nValidation loss decreased (inf --> 1.5).  Saving model ...\n",
        "loss 1=2.5\nval_loss 1=1.5",
    );
}

#[test]
fn tables() {
    check(
        "epoch     train_loss  valid_loss  accuracy  time\n0         2.5         nan         0.5       00:10\n1         nan         nan         0.25      00:10\n",
        "train_loss 0=2.5 1=NaN\nvalid_loss 0=NaN 1=NaN\naccuracy 0=0.5 1=0.25",
    );
    check(
        "Step\tTraining Loss\tValidation Loss\n500\t2.5\tnan\n1000\t0.5\t1.5\n",
        "training_loss 500=2.5 1000=0.5\nvalidation_loss 500=NaN 1000=1.5",
    );
    check(
        "     Epoch   gpu_mem       box       obj    labels  img_size\n     0/299     3.47G    0.5  2.5    57    640:  50%|██| 1/2 [00:01<00:00]\r     0/299     3.47G    0.25  nan    57    640: 100%|██| 2/2 [00:01<00:00]\n     1/299     3.47G    nan  nan    57    640: 100%|██| 2/2 [00:01<00:00]\n",
        "box_loss 0=0.25 1=NaN\nobj_loss 0=NaN 1=NaN",
    );
    check(
        "epoch       iteration   main/loss   validation/main/loss  elapsed_time\n\u{1b}[J1           100         2.5         1.5                   10.5\n\u{1b}[J1           200         nan         1.5                   20.5\n",
        "main/loss 100=2.5 200=NaN\nvalidation/main/loss 100=1.5 200=1.5",
    );
    check("| Step | Loss |\n|------|------|\n| 10 | 2.5 |\n| 20 | inf |\n", "loss 10=2.5 20=inf");
}

#[test]
fn what_is_no_progress_gives_nothing() {
    check(
        "import torch\nbatch_size = 32\nloss = 0.5\ntotal_loss = 0.0\ndef train(loss=0.5, lr=1e-3):\n    loss = criterion(out, y) * 0.5\n    running_loss += loss.item()\n    print(f'step {i} loss {loss:.3f}')\n    log(loss=loss.item(), step=3)\n    loss = 0.5 * a\n",
        "",
    );
    check(
        "loss tensor([nan, nan], device='cuda:0')\nloss: tensor([[1.5, nan]])\nloss: [0.5, 0.25]\n",
        "",
    );
    check(
        "lr: 0.001\n'loss': 'mse'\nloss_weight: 1.0\nmax_norm=35\nmax_grad_norm: 1.0\nlr=0.1\n",
        "",
    );
    check("python train.py --loss 0.5 --grad-norm 1.0 --epoch 5\n", "");
    check("Namespace(loss=0.5, grad_norm=1.0)\ndict(type='L1', loss=1.0)\n", "");
    check("There was a loss of 3 million.\nThe loss is 3 to them, and a norm of 5 remains.\n", "");
    check(
        "Traceback (most recent call last):\n  File \"train.py\", line 179, in <module>\n    raise ValueError('loss is nan')\n",
        "",
    );
    check("2 | loss            | CrossEntropyLoss | 0     \n108 M     Trainable params\n", "");
    check("wandb: train/loss 0.25\n", "");
}

#[test]
fn what_looks_like_code_at_first_is_read() {
    check("loss 2.5, mean return 3.5, GPU usage: 50%. lambda 0.5\nfrom epoch 3 on\n", "loss 0=2.5");
}

#[test]
fn several_runs_in_one_file_stay_as_they_are() {
    check(
        "step:1/9 train_loss:4.5\nstep:2/9 train_loss:4.0\nfinal val_loss:2.5\nstep:1/9 train_loss:5.5 train_time:65ms\n",
        "train_loss 1=4.5 2=4 1=5.5\nfinal_val_loss 2=2.5",
    );
}

#[test]
fn files_are_recognised_by_their_lines() {
    for (name, text, want) in [
        ("run.log", "epoch 1 loss 2.5\nepoch 2 loss 2.25\n", true),
        ("run.log", "epoch 1 loss 2.5\n", true),
        ("run", "loss: nan\n", true),
        ("run.log", "loss: 2.5\n", false),
        (
            "run.log",
            "OVERFLOW! Attempted loss scale: 4, reducing\nOVERFLOW! Attempted loss scale: 2\n",
            true,
        ),
        ("train.py", "epoch 1 loss 2.5\nepoch 2 loss 2.25\n", false),
        ("README.md", "epoch 1 loss 2.5\nepoch 2 loss 2.25\n", false),
        ("config.yaml", "loss: 0.5\ngrad_norm: 1.0\n", false),
        ("settings", "loss = 0.5\ngrad_norm = 1.0\n", false),
        ("run", "loss = 0.5\nloss = 0.25\nloss = 0.5\n", true),
        ("notes.txt", "The loss was 3 pages. What norm is 5?\n", false),
        ("run.log", "epoch 1 loss 2.5\nepoch 2 loss\0 2.25\n", false),
        ("empty.log", "", false),
    ] {
        assert_eq!(knows(&TEXT, name, text.as_bytes()), want, "{name}: {text}");
    }
}

#[test]
fn lines_of_training_are_found_after_long_settings() -> std::io::Result<()> {
    let mut file = tempfile::Builder::new().suffix(".log").tempfile()?;
    let mut text = "MODEL.DEPTH: 12\n".repeat(2 * HEAD_BYTES / 16);
    text.push_str("iter: 19  total_loss: 9.5\niter: 39  total_loss: 8.5\n");
    file.write_all(text.as_bytes())?;
    let name = file.path().to_string_lossy().into_owned();
    assert!(knows(&TEXT, &name, text.as_bytes()));
    Ok(())
}

#[test]
fn damage_is_noticed_with_its_place() {
    let mut bytes =
        b"step 1 loss 2.5\n\0\0\0\0\nstep 2 loss \xff\xfe 2.5\nstep 3 loss 1.5 ".to_vec();
    bytes.resize(LINE_BYTES_MAX + 200, b'x');
    bytes.extend_from_slice(b"\nstep 4 loss 1.25\n");
    let log = read_bytes(&bytes);
    let steps: Vec<i64> = log.series[0].points.iter().map(|point| point.step).collect();
    assert_eq!(steps, [1, 3, 4]);
    assert_eq!(log.notices.len(), 2);
    assert_eq!(log.notices[0].offset, Some(16));
    assert!(log.notices[1].text.contains("more than 1048576 bytes"), "{}", log.notices[1]);
}

#[test]
fn names_are_bounded() {
    let lines: String =
        (0..3000).map(|n| format!("step {n} {{'a{n}': {n}, 'loss': 1}}\n")).collect();
    let log = read_bytes(lines.as_bytes());
    assert_eq!(log.series.len(), NAMES_MAX);
    assert_eq!(log.series("loss").map(|series| series.points.len()), Some(3000));
    assert_eq!(log.notices.len(), 1);
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        read_bytes(&bytes);
    }

    #[test]
    fn any_text_of_the_usual_parts_is_read(
        text in "(loss|Epoch|step|[:=,|\\[\\]{}()'\"/ .\r\n\t-]|nan|inf|[0-9]{1,20}|%\\||tensor|val|É){0,80}"
    ) {
        read_bytes(text.as_bytes());
    }
}

/// Gradient norms of 1 for 300 updates, then 8 and 64 for 100 each, as means over the epoch.
#[test]
fn running_means_of_old_fairseq_are_taken_apart() {
    let line = |epoch: u32, at: u32, updates: u32, loss: &str, gnorm: &str| {
        format!(
            "| epoch {epoch:03}:    {at} / 600 loss={loss}, ppl=64.00, wps=9000, \
             num_updates={updates}, lr=0.2, gnorm={gnorm}, clip=0%\n"
        )
    };
    let end = "| epoch 001 | loss 4.000 | num_updates 600 | lr 0.2 | gnorm 8.000\n\
               | epoch 001 | valid on 'valid' subset | valid_loss 5.5 | num_updates 600\n";
    let first = [
        line(1, 99, 100, "8.000", "1.000"),
        line(1, 299, 300, "6.000", "1.000"),
        line(1, 399, 400, "5.000", "2.750"),
        line(1, 499, 500, "4.400", "15.000"),
    ];
    let second = [line(2, 99, 700, "2.000", "1.000"), line(2, 199, 800, "nan", "nan")];
    let text = [&first.concat(), end, &second.concat()].concat();
    let log = read_bytes(text.as_bytes());
    let values = |name: &str| -> Vec<f64> {
        let points = &log.series(name).unwrap().points;
        points.iter().map(|point| (point.value * 1e6).round() / 1e6).collect()
    };
    let (loss, gnorm) = (values("loss"), values("gnorm"));
    assert_eq!(loss[..6], [8.0, 5.0, 2.0, 2.0, 2.0, 2.0]);
    // No norm of these updates can have brought the mean down to 8: it is left as it is.
    assert_eq!(gnorm[..6], [1.0, 1.0, 8.0, 64.0, 8.0, 1.0]);
    assert!(loss[6].is_nan() && gnorm[6].is_nan());
    assert_eq!(values("lr"), [0.2; 7]);
    assert_eq!(values("valid_loss"), [5.5]);
    assert_eq!(log.notices.len(), 1);
    assert!(log.notices[0].text.contains("means over each epoch"), "{:?}", log.notices);
}

/// fairseq 0.10 prints means since the line before.
#[test]
fn means_of_new_fairseq_stay() {
    let text = "2021-05-19 | INFO | train_inner | epoch 001:    100 / 600 loss=8, \
                num_updates=100, gnorm=1\n\
                2021-05-19 | INFO | train_inner | epoch 001:    200 / 600 loss=6, \
                num_updates=200, gnorm=2\n";
    let log = read_bytes(text.as_bytes());
    let values = |name: &str| log.series(name).unwrap().points.iter().map(|p| p.value).collect();
    let (loss, gnorm): (Vec<f64>, Vec<f64>) = (values("loss"), values("gnorm"));
    assert_eq!((loss, gnorm, log.notices.len()), (vec![8.0, 6.0], vec![1.0, 2.0], 0));
}

#[test]
fn counts_of_steps_by_other_words() {
    check(
        "Steps : 500, Gen Loss Total : 2.5\nSteps : 600, Gen Loss Total : nan\n",
        "gen_loss_total 500=2.5 600=NaN",
    );
    check("Iterations: 5 loss 2.5\nIterations: 6 loss 2.25\n", "loss 5=2.5 6=2.25");
    check(
        "10:15:01,250 fit.py step   500 | loss: 2.5\n10:15:02,250 fit.py step   600 | loss: 2.25\n",
        "loss 500=2.5 600=2.25",
    );
    check("trainer step 7 loss 2.5\ntrainer step 8 loss 2.25\n", "loss 7=2.5 8=2.25");
    // How far an epoch of a known length is.
    check(
        "Epoch: 0, Batch(0/90) Loss: 2.5\nEpoch: 0, Batch(50/90) Loss: 2.25\nEpoch: 1, Batch(0/90) Loss: 2\n",
        "loss 0=2.5 50=2.25 90=2",
    );
    check(
        "epoch 1 iter 40/70 loss 2.5\nepoch 2 iter 10/70 loss 2.25\nepoch 3 iter 10/70 loss 2\n",
        "loss 40=2.5 80=2.25 150=2",
    );
    // A count over all of training on a line of its own.
    check(
        "> EPOCH: 0/9\n--> STEP: 5/36 -- GLOBAL_STEP: 700\n | > loss_0: 2.5 (2.6)\n\
         > EPOCH: 1/9\n--> STEP: 5/36 -- GLOBAL_STEP: 736\n | > loss_0: 2.25 (2.6)\n",
        "loss_0 700=2.5 736=2.25",
    );
}

#[test]
fn places_in_code_are_no_numbers_of_the_run() {
    check(
        "[INFO] [my_loss.py:211:update] scale now 65536\n[INFO] [my_loss.py:211:update] scale now 32768\n",
        "",
    );
    check("loss.cc:45 done in 3 s\nloss.cc:45 done in 4 s\n", "");
}

#[test]
fn losses_by_other_words() {
    check(
        "Step 50/900; ppl: 8; xent: 2.5\nStep 100/900; ppl: 7; xent: nan\n",
        "ppl 50=8 100=7\nxent 50=2.5 100=NaN",
    );
    check(
        "Epoch 1 | ce=2.5 | grad_norm=INF\nEpoch 2 | ce=2.25 | grad_norm=INF\n",
        "ce 1=2.5 2=2.25\ngrad_norm 1=inf 2=inf",
    );
    // Zeros after other numbers are numbers.
    check(
        "[step=1/9,epoch=0]\n  train/CrossEntropyLoss=2.5\n[step=2/9,epoch=0]\n  train/CrossEntropyLoss=0.0\n",
        "train/crossentropyloss 1=2.5 2=0",
    );
}

#[test]
fn rows_without_a_header() {
    check(
        "0 val 9.5\n0 train 9.25\n1 train 8.5\n2 train nan\n",
        "val_loss 0=9.5\nloss 0=9.25 1=8.5 2=NaN",
    );
    let row = |epoch: u32, loss: &str| {
        format!("  {epoch}/9   4.5G   {loss}  0.03  0.02  0.17  60  640  0.1\n")
    };
    check(
        &[row(0, "0.125"), row(1, "nan")].concat(),
        "box_loss 0=0.125 1=NaN\nobj_loss 0=0.03 1=0.03\ncls_loss 0=0.02 1=0.02\ntotal_loss 0=0.17 1=0.17",
    );
}

#[test]
fn tables_of_several_programs() {
    check(
        "epoch train loss valid loss acc\n0 2.5 3.5 0.5\n1 nan nan 0.1\n",
        "train_loss 0=2.5 1=NaN\nvalid_loss 0=3.5 1=NaN\nacc 0=0.5 1=0.1",
    );
    check(
        "E    #       LOSS TOK2VEC  LOSS NER  SCORE \n---  ------  ------------  --------  ------\n  0       0          2.50     40.25    0.10\n  0     200          1.50     30.25    0.20\n",
        "loss_tok2vec 0=2.5 200=1.5\nloss_ner 0=40.25 200=30.25",
    );
    check(
        "09:28:48 INFO [x/Main] model.log : Step\tTrain loss\tValid loss\n09:28:49 INFO [x/Main] model.log : 200\t2.5\tnan\n09:28:50 INFO [x/Main] model.log : 300\t2.25\t2.5\n",
        "train_loss 200=2.5 300=2.25\nvalid_loss 200=NaN 300=2.5",
    );
    check(
        "%Iter\ttrain_loss\tvalid_loss\n0\t2.5\t3.5\n1\t2.25\t3.25\n",
        "train_loss 0=2.5 1=2.25\nvalid_loss 0=3.5 1=3.25",
    );
}

#[test]
fn last_words_count_as_nan() {
    let calm = "step 1 loss 2.5\nstep 2 loss 2.25\n";
    for (words, want) in [
        ("Loss is nan, stopping training", "loss 1=2.5 2=2.25 2=NaN"),
        (
            "InvalidArgumentError: Found Inf or NaN global norm. : Tensor had Inf values",
            "loss 1=2.5 2=2.25\ngrad_norm 2=NaN",
        ),
        (
            "  raise RuntimeError(\"Model diverged with loss = NaN.\")RuntimeError: Model diverged with loss = NaN.",
            "loss 1=2.5 2=2.25 2=NaN",
        ),
        (
            "Exception: Current loss scale already at minimum - cannot decrease scale anymore.",
            "loss 1=2.5 2=2.25 2=NaN",
        ),
        ("  raise RuntimeError(\"Model diverged with loss = NaN.\")", "loss 1=2.5 2=2.25"),
        ("stop if the loss is nan", "loss 1=2.5 2=2.25"),
        ("nan losses: 0", "loss 1=2.5 2=2.25"),
    ] {
        check(&format!("{calm}{words}\n"), want);
    }
}
