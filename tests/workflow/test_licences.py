"""Indexing methods that run a program whose terms each user has to accept: nothing starts without a line that says who did."""

import datetime

import pytest

ACCEPTED = {"accepted_by": "A. Name", "date": "2026-01-31"}


@pytest.fixture
def with_mosflm(experiment):
    experiment.config |= {"engines": ["builtin", "crystfel"], "crystfel": {"indexing": "asdf,mosflm-latt-nocell"}}
    experiment.runs = experiment.runs[2:]
    return experiment


def test_refused_without_the_line(with_mosflm):
    text = " ".join(with_mosflm.refused().split())
    assert "crystfel.indexing: mosflm runs MOSFLM, whose terms each user has to accept. Read the licence" in text
    assert "licences: {mosflm: {accepted_by: YOUR NAME, date: 2026-01-31}}" in text


def test_the_line_of_another_program_does_not_do(with_mosflm):
    with_mosflm.config["licences"] = {"xds": ACCEPTED}
    assert "mosflm runs MOSFLM" in with_mosflm.refused()


def test_accepted(with_mosflm):
    """The command is told who accepted what it uses, and nothing else; YAML reads the date as a date."""
    accepted = ACCEPTED | {"date": datetime.date(2026, 1, 31)}
    with_mosflm.config["licences"] = {"mosflm": accepted, "dirax": {"accepted_by": "B. Name"}}
    text = with_mosflm.snakemake("--dry-run", "--printshellcmds")
    assert """--licences '{"mosflm": {"accepted_by": "A. Name", "date": "2026-01-31"}}'""" in text


def test_not_asked_without_engine_crystfel(with_mosflm):
    with_mosflm.config["engines"] = ["builtin"]
    assert "crystfel_indexing" not in with_mosflm.planned()


def test_methods_of_crystfel_need_no_line(with_mosflm):
    with_mosflm.config["crystfel"] = {"indexing": "asdf,taketwo"}
    assert "--licences '{}'" in with_mosflm.snakemake("--dry-run", "--printshellcmds")


@pytest.mark.parametrize(
    ("licences", "message"),
    [
        (
            {"mosflm": {"date": "2026-01-31"}},
            "crystfel.indexing: mosflm runs MOSFLM, whose terms each user has to accept",
        ),
        (
            {"mosflm": {"accepted_by": " "}},
            "crystfel.indexing: mosflm runs MOSFLM, whose terms each user has to accept",
        ),
        ({"mosflm": ACCEPTED | {"date": "today"}}, "licences.mosflm.date: 'today' is not a date (when, as 2026-01-31)"),
        ({"mosfilm": ACCEPTED}, "licences.mosfilm: no such setting; did you mean mosflm?"),
        ({"mosflm": "me"}, "licences.mosflm: 'me' is not a section with keys of its own"),
    ],
)
def test_a_line_that_says_too_little(with_mosflm, licences, message):
    with_mosflm.config["licences"] = licences
    assert message in with_mosflm.refused()
