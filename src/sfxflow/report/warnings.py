"""What a reader must know before believing the numbers."""

import json
from typing import NamedTuple

import numpy as np

from sfxflow.reflections import Status
from sfxflow.report.ambiguity import ambiguity_warnings
from sfxflow.report.contents import SAME_ORIENTATION, same_orientation
from sfxflow.report.markup import count, is_number, percent, share
from sfxflow.statistics.wilson import FIT_FROM

#: Completeness below these fractions is called nearly empty and incomplete.
_NEARLY_EMPTY, _INCOMPLETE = 0.3, 0.9
#: Most of the crystals point one way from this fraction on.
_ONE_ORIENTATION = 0.9
#: Failed frames from this fraction on are a warning, fewer a note.
_MANY_FAILED = 0.1
#: The same for observations that can't be used.
_MANY_UNUSABLE = 0.01
#: Mean |L| below this looks twinned, from so many pairs on: the scatter of their mean is 0.29 / sqrt(n), noise makes it larger only.
_LOW_L, _PAIRS_THAT_TELL = 0.46, 500


class Warning_(NamedTuple):
    """One warning.

    Attributes
    ----------
    serious : bool
        The results are not what they seem; otherwise a note.
    where : str
        Run or dataset.
    text : str
    """

    serious: bool
    where: str
    text: str


def run_warnings(run):
    """Warnings about the frames of a run.

    Parameters
    ----------
    run : sfxflow.report.contents.Run

    Returns
    -------
    list of Warning_
    """
    where = f"{run.engine}, run {run.name}"
    found = []
    if run.n_expected is not None and run.n_frames != run.n_expected:
        found.append(
            (True, f"{run.n_frames} frames are accounted for, but the table of the runs says {run.n_expected}.")
        )
    for text, n_chunks in run.warnings:
        also = f" (in {n_chunks} of {run.n_chunks} chunks, with these or similar numbers)" if run.n_chunks > 1 else ""
        found.append((True, f"{_sentence(text)}{also}"))
    failed = run.counts[Status.failed]
    if failed:
        part = failed / run.n_frames
        found.append((part >= _MANY_FAILED, f"{failed} of {run.n_frames} frames failed ({percent(part)} %)."))
    if run.n_frames and not run.n_hits:
        found.append((True, "No frame has enough peaks to be a hit: there is nothing to index."))
    elif run.n_hits and not run.counts[Status.indexed]:
        found.append((True, f"None of {run.n_hits} hits is indexed."))
    return [Warning_(serious, where, text) for serious, text in found]


def dataset_warnings(dataset):
    """Warnings about merged data.

    Parameters
    ----------
    dataset : sfxflow.report.contents.Dataset

    Returns
    -------
    list of Warning_
    """
    where = f"{dataset.engine}, {dataset.merger}, dataset {dataset.name}"
    found = [*_merging(dataset), *ambiguity_warnings(dataset), *_figures(dataset), *_groups(dataset)]
    if len(dataset.reciprocal) and dataset.space_group:
        part = same_orientation(dataset.reciprocal, dataset.space_group)
        if is_number(part) and part >= _ONE_ORIENTATION:
            text = (
                f"{percent(part, 0)} % of {len(dataset.reciprocal)} crystals have one orientation within "
                f"{SAME_ORIENTATION:.0f} degrees (up to the symmetry): large parts of reciprocal space can't be measured, and "
                "half sets share the same errors."
            )
            found.append((True, text))
    return [Warning_(serious, where, text) for serious, text in found]


def _merging(dataset):
    attrs = dataset.attrs
    if attrs is None:
        return
    if not len(dataset.merged["I"]):
        why = f": {attrs['remark']}" if attrs.get("remark") else ""
        yield True, f"Nothing was merged{why}."
    elif attrs.get("remark"):
        yield False, _sentence(attrs["remark"])
    n = len(dataset.crystals["status"])
    if n == 1:
        yield True, "There is one crystal only: nothing can be compared."
    asked = _asked_for(attrs, "partiality")
    used = attrs.get("partiality_model")
    if n and used and asked and used != asked:
        yield (
            True,
            f"The partiality model '{asked}' could not be used with {count(n)} crystals; merged with the model '{used}' instead.",
        )
    left_out = np.count_nonzero(np.asarray(dataset.crystals["status"], dtype=object) != "merged")
    if left_out:
        yield 2 * left_out > n, f"{left_out} of {n} crystals were left out of the merged data."
    unusable = attrs.get("n_unusable", 0)
    if unusable:
        part = unusable / (unusable + attrs.get("n_observations", 0))
        text = f"{count(unusable)} observations have no finite intensity, uncertainty or width and were left out."
        yield part > _MANY_UNUSABLE, text
    absent = attrs.get("absent_mean_i_over_sigma")
    if attrs.get("absences_are_there") or (is_number(absent) and attrs.get("n_absent", 0) >= 10 and absent > 3.0):
        text = (
            f"{attrs['n_absent']} observations that {attrs['space_group']} makes absent have a mean I/sigma of {absent:.1f}: "
            "the space group may be wrong."
        )
        yield True, text


def _figures(dataset):
    if dataset.figures is None:
        return
    for remark in dataset.figures["remarks"]:
        yield True, remark
    completeness = dataset.overall.get("completeness")
    if not is_number(completeness) or not dataset.overall.get("n_reflections"):
        return
    limits = " to ".join(
        f"{value:.2f}" for value in (dataset.overall.get("d_max"), dataset.overall.get("d_min")) if is_number(value)
    )
    if completeness < _NEARLY_EMPTY:
        yield True, f"Completeness {percent(completeness)} % overall ({limits} angstrom): nearly empty."
    elif completeness < _INCOMPLETE:
        yield False, f"Completeness {percent(completeness)} % overall ({limits} angstrom): incomplete."
    mean_l, n_pairs = (dataset.overall.get(f"l_test_{name}") for name in ("mean_abs", "n_pairs"))
    if is_number(mean_l) and (n_pairs or 0) >= _PAIRS_THAT_TELL and mean_l < _LOW_L:
        text = (
            f"The L-test has a mean |L| of {mean_l:.3f} (0.5 where all is well, 0.375 in an even mixture): twinned crystals, a mixture of "
            "ways to index, or a space group with more rotations than the crystals have."
        )
        yield True, text
    b = dataset.overall.get("wilson_b_squared")
    if is_number(b) and b < 0.0:
        text = f"The Wilson B is negative ({b:.1f} Å²): it is fitted from {1 / FIT_FROM:.1f} angstrom on, and the data reach too little further."
        yield False, text
    pairs = share(dataset.overall.get("n_pairs") or 0, dataset.overall["n_reflections"])
    if pairs < 0.5 and dataset.overall.get("n_pairs") is not None:
        yield (
            False,
            f"Rsplit, CC1/2 and CC* are of {percent(pairs, 0)} % of the reflections: the others are in one half set only.",
        )


def _groups(dataset):
    for group in dataset.groups:
        name = f"Group {group['group']} (by {group['split_by']})"
        if not group["n_crystals"]:
            yield True, f"{name} is empty: none of the merged crystals belongs to it."
        else:
            for remark in group["remarks"]:
                yield True, f"{name}: {remark}"
    for found in dataset.differences:
        if all(found["n_crystals"]):
            for remark in found["remarks"]:
                yield False, remark


def _asked_for(attrs, setting):
    try:
        return json.loads(attrs["provenance"])["settings"].get(setting)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError):
        return None


def _sentence(text):
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
