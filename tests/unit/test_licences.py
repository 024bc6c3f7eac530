"""Terms of other people's programs: which methods need a line, and what is said without one."""

import re
from pathlib import Path

import pytest

from sfxflow.errors import InputError
from sfxflow.io.config_schema import config_schema
from sfxflow.licences import LICENCES, accepted_licences, licensed_methods, refusal, require_licences

ACCEPTED = {"mosflm": {"accepted_by": "A. Name", "date": "2026-01-31"}, "xds": {"accepted_by": "B. Name", "date": None}}


@pytest.mark.parametrize(
    ("methods", "licensed"),
    [
        ("asdf", []),
        ("mosflm", ["mosflm"]),
        ("asdf, mosflm-latt-nocell,taketwo,xds-nolatt-cell,mosflm-nolatt", ["mosflm", "xds"]),
        (["DirAx", "xgandalf"], ["dirax"]),
        ("", []),
        ("none", []),
    ],
)
def test_methods_that_run_a_licensed_program(methods, licensed):
    assert licensed_methods(methods) == licensed


def test_accepted_ones_are_returned_for_the_provenance():
    assert require_licences("asdf,mosflm-cell", ACCEPTED) == {"mosflm": ACCEPTED["mosflm"]}
    assert require_licences("asdf", {}) == {}


@pytest.mark.parametrize("accepted", [{}, {"dirax": {}}, {"dirax": {"accepted_by": "  "}}, {"xds": ACCEPTED["xds"]}])
def test_refused_without_the_line(accepted):
    with pytest.raises(InputError) as error:
        require_licences("asdf,dirax-latt", accepted)
    text = str(error.value)
    assert text.startswith(
        "crystfel.indexing: dirax runs DirAx, whose terms each user has to accept. Read the conditions on"
    )
    assert "licences: {dirax: {accepted_by: YOUR NAME, date: 2026-01-31}}" in text


@pytest.mark.parametrize("text", ["{", "[]", '{"mosflm": "me"}'])
def test_what_is_not_the_config_section(text):
    with pytest.raises(InputError, match="^--licences: "):
        accepted_licences(text)


def test_workflow_schema_and_docs_say_the_same():
    """The workflow can't import the package: it has the programs and what to read in a table of its own."""
    root = Path(__file__).parents[2]
    common = (root / "workflow/rules/config.smk").read_text()
    table = common[common.index("LICENSED = {") :]
    assert re.findall(r'^    "(\w+)": \(', table[: table.index("\n}")], re.MULTILINE) == list(LICENCES)
    docs = (root / "docs/licences.md").read_text()
    for name, licence in LICENCES.items():
        assert f'"{licence.read}"' in table
        assert f'"{licence.program}"' in table
        assert f"| `{name}` | {licence.program} |" in docs
        assert licence.read in config_schema()["properties"]["licences"]["properties"][name]["description"]
    words = refusal("mosflm", "X").removeprefix("X: mosflm runs MOSFLM, ").partition(" Read ")[0]
    assert words in common
