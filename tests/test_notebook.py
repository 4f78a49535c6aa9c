"""The notebook runs from top to bottom, as a stranger would run it, with a training of 4 steps."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "looking-inside.ipynb"


@pytest.mark.slow  # a training of four steps at 227 pixels and everything after it: a minute
@pytest.mark.timeout(600)
def test_the_notebook_runs_from_top_to_bottom(environment, tmp_path):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in cells)
    magic = [code for code in codes if code.startswith("%pip install")]
    assert len(magic) == 1  # the one installation that a hosted notebook needs
    script = tmp_path / "notebook.py"
    script.write_text("\n".join(code for code in codes if code not in magic), encoding="utf-8")
    changed = {"ALEXNET_STEPS": "4", "ALEXNET_RUN": str(tmp_path / "run"), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, script], env={**environment, **changed}, capture_output=True, text=True,
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for said in ("62,378,344 parameters", "60,965,224", "813,859", "54.25", "conv1 is 55x55"):
        assert said in done.stdout
    assert re.search(r"changed by at most [12] of 255", done.stdout)
    assert re.search(r"0\.\d{3} (functional|defective)", done.stdout)
