"""The command line that comes with the package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig

import pytest

SCRIPT = shutil.which("tamegrad", path=sysconfig.get_path("scripts"))
WAYS = {"script": [SCRIPT or "tamegrad"], "module": [sys.executable, "-m", "tamegrad"]}


def run(way: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*WAYS[way], *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def logs(tmp_path):
    """A calm log and one that ends with NaN."""
    calm = [{"step": n, "loss": 2.0 - 0.004 * n, "grad_norm": 1.0} for n in range(200)]
    broken = calm[:150] + [{"step": n, "loss": "NaN", "grad_norm": 1e9} for n in range(150, 200)]
    for name, rows in {"calm": calm, "broken": broken}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
def test_logs_are_diagnosed_with_the_exit_codes_of_the_program(way, logs):
    calm = run(way, "diagnose", "--json", str(logs / "calm.jsonl"))
    assert (calm.returncode, json.loads(calm.stdout)["verdict"]) == (0, "healthy"), calm
    broken = run(way, "diagnose", "--json", str(logs / "broken.jsonl"))
    assert (broken.returncode, json.loads(broken.stdout)["verdict"]) == (1, "exploded"), broken
    missing = run(way, "diagnose", str(logs / "none.jsonl"))
    assert missing.returncode == 2 and "none.jsonl" in missing.stderr


@pytest.mark.parametrize("way", WAYS)
def test_wrong_arguments_and_help_end_as_they_do_in_the_program(way):
    wrong = run(way, "diagnos")
    assert wrong.returncode == 2 and "diagnose" in wrong.stderr and not wrong.stdout
    shown = run(way, "--help")
    assert shown.returncode == 0 and "diagnose" in shown.stdout and not shown.stderr
    assert run(way, "--version").stdout.startswith("tamegrad ")


def test_a_command_that_the_wheel_leaves_out_says_where_it_is():
    trained = run("script", "train", "--json", "some.toml")
    assert trained.returncode == 2
    assert "this build has no `train`" in trained.stderr and "tamegrad-cli" in trained.stderr


def test_the_command_needs_no_torch(logs):
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv[1:] = ['explain'];"
        "from tamegrad.__main__ import main; sys.exit(main())"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0 and "gradient" in shown.stdout, shown.stderr
