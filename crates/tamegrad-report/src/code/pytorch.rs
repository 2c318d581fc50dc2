//! Remedies as code for a PyTorch loop.

use tamegrad::inspection::{OperationKind, SourceLine};
use tamegrad::remedies::{Change, NormPlace, Scheme};

use super::list;
use tamegrad::remedies::two_digits;

/// The lines that carry out a change; `None` where there is no line to show.
pub(super) fn code(change: &Change) -> Option<String> {
    Some(match change {
        Change::Guard => "guard = tamegrad.watch(model, optimizer, mode=\"protect\")".to_owned(),
        Change::FilterRows { input, rows } => {
            let name = input.as_deref().unwrap_or("x");
            let known = match &rows[..] {
                [] => String::new(),
                rows => format!("  # rows {} of the batch", list(rows)),
            };
            format!(
                "ok = torch.isfinite({name}).flatten(1).all(1){known}\n{name}, y = {name}[ok], y[ok]"
            )
        }
        Change::FixLabels { classes } => {
            let classes = classes.map_or("classes".to_owned(), |classes| classes.to_string());
            format!("assert 0 <= y.min() and y.max() < {classes}  # renumber the labels from 0")
        }
        Change::GuardAverage { line } => after_line(
            line.as_ref(),
            "loss = losses.sum() / mask.sum().clamp(min=1)  # 0 where nothing is left to average",
        ),
        Change::GuardOperation { operation, line } => guarded(*operation, line.as_ref()),
        Change::UnmaskRow { line } => after_line(
            line.as_ref(),
            "scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # in place of -inf",
        ),
        Change::OptimizerEps { eps } => {
            format!("for group in optimizer.param_groups: group[\"eps\"] = {eps:?}")
        }
        Change::ClearGradients => "optimizer.zero_grad()  # before each backward pass".to_owned(),
        Change::MeanLoss => {
            "loss = loss / (y != -100).sum().clamp(min=1)  # or reduction=\"mean\"".to_owned()
        }
        Change::DropLastBatch => {
            "loader = DataLoader(data, batch_size=batch_size, drop_last=True)".to_owned()
        }
        Change::WiderType { line: Some(line) } => after_line(
            Some(line),
            "with torch.autocast(x.device.type, enabled=False): h = operation(x.float())  # this line \
             in float32",
        ),
        Change::WiderType { line: None } => {
            "with torch.autocast(device_type, dtype=torch.bfloat16): ...  # float32 parameters"
                .to_owned()
        }
        Change::OtherKernel => {
            "with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH): ..."
                .to_owned()
        }
        Change::ClipGlobalNorm { max_norm } => format!(
            "torch.nn.utils.clip_grad_norm_(model.parameters(), {max_norm:?})  # before \
             optimizer.step()"
        ),
        Change::ClipTensorNorm { max_norm } => {
            format!("for p in model.parameters(): torch.nn.utils.clip_grad_norm_(p, {max_norm:?})")
        }
        Change::ClipValue { limit } => {
            format!("torch.nn.utils.clip_grad_value_(model.parameters(), {limit:?})")
        }
        Change::WarmUp { steps } => format!(
            "scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / {steps}, \
             total_iters={steps})"
        ),
        Change::LearningRate { factor, from: Some(from) } => format!(
            "for group in optimizer.param_groups: group[\"lr\"] = {:?}",
            two_digits(factor * from)
        ),
        Change::LearningRate { factor, from: None } => {
            format!("for group in optimizer.param_groups: group[\"lr\"] *= {factor:?}")
        }
        Change::Rewind { before } => format!(
            "model.load_state_dict(torch.load(checkpoint, weights_only=True))  # from before step {}",
            before.0
        ),
        Change::ScaleTarget => {
            "y = (y - y_mean) / y_std  # of all targets; undo on the outputs".into()
        }
        Change::ScaleInput => "x = (x - x_mean) / x_std  # of all inputs".into(),
        Change::WeightDecay { rate } => {
            format!("optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay={rate:?})")
        }
        Change::L2Penalty { strength } => {
            format!("loss = loss + tamegrad.weight_penalty(model, l2={strength:?})")
        }
        Change::L1Penalty { strength } => {
            format!("loss = loss + tamegrad.weight_penalty(model, l1={strength:?})")
        }
        Change::BatchSize { samples } => format!("loader = DataLoader(data, batch_size={samples})"),
        Change::Reinitialise { scheme, layer } => reinitialised(*scheme, layer.as_deref()),
        Change::BatchNorm { place } => {
            let place = match place {
                NormPlace::Before => "before",
                NormPlace::After => "after",
            };
            format!("tamegrad.add_batch_norm(model, \"{place}\")")
        }
        Change::Activation { name, .. } => format!("h = torch.nn.functional.{name}(layer(h))"),
        Change::Depth { .. } => return None,
    })
}

fn reinitialised(scheme: Scheme, layer: Option<&str>) -> String {
    match (scheme, layer) {
        (Scheme::He, None) => "tamegrad.reinitialize_(model, scheme=\"he\")".to_owned(),
        (Scheme::Orthogonal, None) => {
            "tamegrad.reinitialize_(model, scheme=\"orthogonal\")".to_owned()
        }
        (scheme, layer) => {
            let function = match scheme {
                Scheme::He => "kaiming_normal_",
                Scheme::Xavier => "xavier_normal_",
                Scheme::Orthogonal => "orthogonal_",
            };
            let layer = layer.unwrap_or("layer");
            format!("torch.nn.init.{function}(model.get_submodule(\"{layer}\").weight)")
        }
    }
}

/// An advice with the place that it is for.
fn after_line(line: Option<&SourceLine>, advice: &str) -> String {
    let Some(line) = line else { return advice.to_owned() };
    format!("# {}, line {}: {}\n{advice}", line.file, line.line, line.code.trim())
}

/// A function kept away from its singular point: the line itself where its form is known.
fn guarded(operation: OperationKind, line: Option<&SourceLine>) -> String {
    let (method, guard, general) = match operation {
        OperationKind::Log => ("log", ".clamp(min=1e-12)", "x.clamp(min=1e-12).log()"),
        OperationKind::Sqrt => ("sqrt", ".clamp(min=1e-12)", "x.clamp(min=1e-12).sqrt()"),
        OperationKind::Exp => ("exp", ".clamp(max=80)", "x.clamp(max=80).exp()"),
        OperationKind::Std => ("var", "", "(x.var(dim, unbiased=False) + 1e-8).sqrt()"),
        OperationKind::Norm => ("norm", "", "torch.linalg.vector_norm(x + 1e-12, dim=-1)"),
        OperationKind::Power => ("pow", "", "x.clamp(min=1e-12) ** p"),
        OperationKind::InverseTrigonometric => ("acos", "", "x.clamp(-1 + 1e-7, 1 - 1e-7).acos()"),
        _ => ("", "", "x / (y + 1e-8)"),
    };
    let patch = line.and_then(|line| match operation {
        OperationKind::Division => divisor_guarded(line.code.trim()),
        _ if !guard.is_empty() => input_guarded(line.code.trim(), method, guard),
        _ => None,
    });
    after_line(line, patch.as_deref().unwrap_or(general))
}

/// `x.sqrt()` as `x.clamp(..).sqrt()`, and `torch.sqrt(x)` as `torch.sqrt((x).clamp(..))`; `None` where the
/// line has another form.
fn input_guarded(code: &str, method: &str, guard: &str) -> Option<String> {
    let call = format!("torch.{method}(");
    if let Some(start) = code.find(&call).map(|at| at + call.len()) {
        let end = start + closing(&code[start..])?;
        let (before, inner, after) = (&code[..start], &code[start..end], &code[end..]);
        return Some(format!("{before}({inner}){guard}{after}"));
    }
    let call = format!(".{method}()");
    let only = code.matches(&call).count() == 1;
    only.then(|| code.replace(&call, &format!("{guard}{call}")))
}

/// `a / b` as `a / (b + 1e-8)`; `None` where the line has another form.
fn divisor_guarded(code: &str) -> Option<String> {
    let (before, divisor) = code.split_once(" / ")?;
    let is_whole = closing(divisor).is_none() && !divisor.contains(" / ");
    let is_simple = !divisor.contains(['+', '-', ',', '#']) && !divisor.contains(" * ");
    (is_whole && is_simple).then(|| format!("{before} / ({divisor} + 1e-8)"))
}

/// Where the bracket closes that was opened before the text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0i64;
    text.char_indices().find_map(|(at, character)| {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        (depth < 0).then_some(at)
    })
}
