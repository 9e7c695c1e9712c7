"""The notebook runs from top to bottom as a reader would run it, and sees decisions of the mesh it starts."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "01_first_agent.ipynb"
TOOLS = ROOT / ".mesh" / "tools"


def test_the_notebook_is_kept_without_results() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert [cell.id for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.long
@pytest.mark.timeout(180)
def test_the_notebook_runs_and_sees_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tools of a notebook write, they write into the project's folder."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        (TOOLS / name.lower()).mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv(name, str(TOOLS / name.lower()))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": NOTEBOOK.parent}}
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where)

    client.execute()  # raises what a cell raised

    shown = [output["data"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    text = "\n".join(data["text/plain"] for data in shown)
    seen = re.search(r"'seconds': 3, 'decisions': (\d+)", text)
    assert seen is not None
    assert int(seen[1]) > 10
    assert "{'exit code': 0," in text
    assert sum("image/png" in data for data in shown) == 1
    tables = [data["text/markdown"] for data in shown if "text/markdown" in data]
    assert len(tables) == 1
    assert tables[0].count("| cell-forecast |") == 8
