"""Silence around chatty libraries."""

import os
import subprocess
import sys

import pytest

from anime_tf.quiet import quiet


def test_nothing_is_seen_by_whatever_way(capfd):
    with quiet():
        print("by Python")
        os.write(1, b"by the system\n")
        subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
    print("after")
    assert capfd.readouterr() == ("after\n", "")


def test_an_error_shows_what_was_kept(capfd):
    with pytest.raises(ValueError, match="broken"), quiet():
        os.write(1, b"why it broke\n")
        raise ValueError("broken")
    assert capfd.readouterr() == ("", "why it broke\n")
    print("after")
    assert capfd.readouterr().out == "after\n"
