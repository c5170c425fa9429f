"""Silence around chatty libraries."""

import os
import subprocess
import sys

import pytest

from anime_tf.errors import UserError
from anime_tf.quiet import load_tensorflow, quiet

_CHATTER = """
import os, sys
from anime_tf.quiet import quiet

with quiet():
    print("by Python")
    os.write(1, b"by the system")
    os.system("echo by a child >&2")
print("after")
"""


def test_nothing_is_seen_by_whatever_way():
    command = [sys.executable, "-c", _CHATTER]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("after\n", "")


def test_an_error_shows_what_was_kept(capfd):
    with pytest.raises(ValueError, match="broken"):
        _break_quietly()
    assert capfd.readouterr() == ("", "why it broke\n")
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_tensorflow_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"pip install 'anime_tf\[cpu\]'"):
        load_tensorflow()


@quiet()
def _break_quietly():
    os.write(1, b"why it broke\n")
    raise ValueError("broken")
