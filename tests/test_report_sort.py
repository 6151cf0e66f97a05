"""The list of patients is sorted by its heads, numbers as numbers; folded tables are open on paper."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files

import pytest

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node on this machine to run the page's script in")
SCRIPT = (files("mtdlr.report") / "templates" / "sort.js").read_text(encoding="utf-8")
PAGE = """
const cells = ["2.5", "\u22121.0", "10", "A2"].map(text => ({ textContent: text }));
const body = { rows: cells.map(cell => ({ cells: [{}, cell] })), appendChild(row) {
  this.rows = this.rows.filter(other => other !== row).concat(row); } };
const click = [], print = [], folded = [{ open: false }];
const head = { dataset: { sort: "" }, cellIndex: 1, closest: () => ({ tBodies: [body] }),
  addEventListener: (name, act) => click.push(act) };
const window = { addEventListener: (name, act) => print.push(act) };
const document = { querySelectorAll: what => what === "th[data-sort]" ? [head] : folded };
%s
const seen = [];
for (let i = 0; i < 2; i++) { click[0](); seen.push(body.rows.map(row => row.cells[1].textContent)); }
print[0]();
console.log(JSON.stringify([seen, folded[0].open]));
"""


def test_a_click_sorts_and_another_turns_it_round() -> None:
    """-1, 2.5, 10, then words; the second click gives the reverse. Before printing, folded tables are opened."""
    assert NODE is not None
    done = subprocess.run([NODE, "-e", PAGE % SCRIPT], capture_output=True, text=True, check=True)
    (up, down), opened = json.loads(done.stdout)
    assert up == ["\u22121.0", "2.5", "10", "A2"] and down == up[::-1] and opened
