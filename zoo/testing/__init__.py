"""The conformance kit: what every component must satisfy, the built-in ones included.

In a plugin's own tests, one line a component:

    from zoo.testing import assert_conforms

    def test_mine():
        assert_conforms("backbone", "mine")

`check` returns the same findings as a report; `zoo plugin check NAME|FILE` prints it. The kit runs
on the CPU. It reads the test split of a data set, to hold it against the training split; no model
is measured on it here.
"""

from zoo.testing.report import ComponentReport, PluginReport, Report, Row, Size, State, Verdict
from zoo.testing.subjects import assert_conforms, check

__all__ = [
    "ComponentReport",
    "PluginReport",
    "Report",
    "Row",
    "Size",
    "State",
    "Verdict",
    "assert_conforms",
    "check",
]
