"""What the demo compiles beside its first stages."""

import pytest

from mtdlr.cli.compiling import LOOPS


@pytest.mark.parametrize("name", LOOPS)
def test_the_loops_compiled_ahead_are_called_as_a_run_calls_them(name):
    """Each piece of the work that the demo compiles ahead does what it says, and gives a result."""
    assert LOOPS[name]()() is not None
