"""Opens what `examples/write_run.rs` wrote with pyarrow and polars, and checks rows and values.

Usage: open_run.py PATH, with the PATH that write_run was given.
"""

import io
import json
import math
import sys
from pathlib import Path

import polars
import pyarrow.ipc
import pyarrow.parquet

BREAKS = 602
END_MARK = bytes.fromhex("ffffffff00000000")
STEP_COLUMNS = [
    "step", "segment", "wall", "loss", "metric", "learning_rate", "gradient_norm",
    "nonfinite_gradients", "update_ratio",
]
TENSOR_COLUMNS = [
    "step", "segment", "steps", "tensor", "l2", "l2_min", "l2_max", "max_abs", "mean", "nans",
    "infs", "zeros",
]


def check_steps(columns):
    """Every step is there; NaN and infinity are values, what was not measured is null."""
    assert list(columns) == STEP_COLUMNS, list(columns)
    assert columns["step"] == list(range(1000))
    for step, loss in enumerate(columns["loss"]):
        if BREAKS <= step < BREAKS + 3:
            assert math.isnan(loss), (step, loss)
            assert columns["gradient_norm"][step] == math.inf
            assert columns["nonfinite_gradients"][step] == 3
        else:
            assert loss == 2.0 / (1.0 + step), (step, loss)
            assert columns["gradient_norm"][step] == 1 + step % 7
    assert columns["metric"] == [0.5 if step % 100 == 0 else None for step in range(1000)]
    assert columns["update_ratio"] == [None] * 1000
    assert columns["wall"][999] == 1.7e9 + 999


def check_tensors(columns):
    """200 steps before the incident, 200 after it and the last ones are in full."""
    assert list(columns) == TENSOR_COLUMNS, list(columns)
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    envelopes = [(row["step"], row["steps"]) for row in rows if row["steps"] > 1]
    ends = [(99, 100), (199, 100), (299, 100), (399, 100), (402, 3)]
    assert envelopes == [end for end in ends for _ in range(3)], envelopes
    full = [row for row in rows if row["steps"] == 1]
    assert [row["step"] for row in full] == [step for step in range(403, 1000) for _ in range(3)]
    assert (rows[1]["l2_min"], rows[1]["l2_max"], rows[1]["zeros"]) == (2.0, 14.0, 1000)
    for row in full:
        if (row["step"], row["tensor"]) == (BREAKS, 0):
            assert math.isnan(row["l2"]) and math.isnan(row["max_abs"]) and row["nans"] == 3
        else:
            assert row["l2"] == (row["tensor"] + 1) * (1 + row["step"] % 7), row


def main():
    path = Path(sys.argv[1])
    run, parquet = path / "run", path / "parquet"
    for name, check in [("steps", check_steps), ("tensors", check_tensors)]:
        stream = run / f"{name}.arrows"
        with pyarrow.ipc.open_stream(stream) as reader:
            check(reader.read_all().to_pydict())
        check(polars.read_ipc_stream(stream).to_dict(as_series=False))
        # As it is while the run goes on: without the end mark.
        data = stream.read_bytes()
        assert data.endswith(END_MARK)
        growing = data.removesuffix(END_MARK)
        check(pyarrow.ipc.open_stream(growing).read_all().to_pydict())
        check(polars.read_ipc_stream(io.BytesIO(growing)).to_dict(as_series=False))
        check(pyarrow.parquet.read_table(parquet / f"{name}.parquet").to_pydict())
        check(polars.read_parquet(parquet / f"{name}.parquet").to_dict(as_series=False))
    info = json.loads((run / "run.json").read_text())
    assert [tensor["name"] for tensor in info["tensors"]] == ["fc1.weight", "fc1.bias", "fc2.weight"]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [(event["kind"], event["step"]) for event in events] == [("finding", 602), ("thinned", 999)]
    print("ok")


if __name__ == "__main__":
    main()
