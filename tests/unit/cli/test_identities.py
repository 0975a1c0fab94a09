"""A set of many report lines: what is in it, what was met, and that its memory has a bound."""

from __future__ import annotations

import subprocess
import sys

import pytest

from asyncsdk.cli.identities import Identities


def test_what_is_in_it_and_what_was_met() -> None:
    with Identities() as known:
        known.add_all((name, None) for name in "abcab")
        assert known.meet(("b", None))
        assert not known.meet(("z", None))
        known.add_all([("b", None)])
        assert [name for name in "abcz" if (name, None) in known] == ["a", "b", "c"]
        assert known.count_unmet() == 2
        assert [name for name in "abcz" if known.was_met((name, None))] == ["b"]
    known.close()


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in KiB on Linux")
def test_its_memory_does_not_grow_with_what_is_in_it() -> None:
    """Eight hundred thousand take less than the 60 MiB that a set of Python's numbers would."""
    script = (
        "import resource\nfrom asyncsdk.cli.identities import Identities\n"
        "def used():\n    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with Identities() as known:\n"
        "    before = used()\n"
        "    known.add_all((str(number),) for number in range(800_000))\n"
        "    assert ('799999',) in known\n"
        "    print(used() - before)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(said.stdout) < 30 * 1024
