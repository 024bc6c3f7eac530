"""The section on engines and mergers side by side."""

import copy
import re

import pytest

from sfxflow.report.comparison import comparison_section

FIGURES = {
    "n_reflections": 5000, "n_possible": 6000, "completeness": 0.8333, "n_measurements": 50000, "multiplicity": 10.0,
    "i_over_sigma": 20.0, "n_pairs": 4000, "r_split": 0.111, "cc_half": 0.91, "cc_star": 0.97,
    "n_reference": 0, "reference_cc": None, "reference_r1_i": None, "d_max": 30.0, "d_min": 2.0,
}  # fmt: skip
FRAMES = {"frames": 300, "failed": 1, "hits": 200, "indexed": 150, "lattices": 160}


def judged(**figures):
    overall = FIGURES | figures
    return {"overall": overall, "shells": [overall | {"d_min": 4.0}, overall | {"d_max": 4.0}]}


def row(name, own, common, cpu):
    engine, merger = name.split("/")
    cost = {"cpu": cpu, "cpu_total": None if None in cpu.values() else sum(cpu.values()), "memory": 512.0}
    more = {"frames": FRAMES, "crystals": 160, "crystals_merged": 155}
    return {"name": name, "engine": engine, "merger": merger, "own": own, "common": common, "cost": cost} | more


COMPARED = {
    "provenance": {},
    "datasets": [
        {
            "name": "lyso<zyme",
            "reference": None,
            "n_common": 700,
            "n_common_pairs": 600,
            "n_possible": 6000,
            "rows": [
                row(
                    "builtin/builtin",
                    judged(),
                    judged(r_split=0.055),
                    {"peaks": 1.0, "indexing": 2.0, "merging": 250.0},
                ),
                row(
                    "crystfel/partialator",
                    judged(r_split=0.044),
                    judged(r_split=0.066),
                    {"peaks": None, "merging": 3.0},
                ),
            ],
            "pairs": [
                {"first": "builtin/builtin", "second": "crystfel/partialator", "n": 800, "cc": 0.9876, "r1_i": 0.123}
                | {"n_common": 700, "cc_common": 0.9911, "r1_i_common": None}
            ],
            "remarks": ["they share little"],
        }
    ],
}


def text_of(compared):
    return " ".join(re.sub(r"<svg.*?</svg>|<[^>]*>", " ", comparison_section(compared), flags=re.DOTALL).split())


def test_figures_stand_twice():
    text = text_of(COMPARED)
    own, common = text.split("on the reflections that all have.")[:2]
    assert "builtin/builtin 5 000 83.3 10.0 20.0 4 000 11.1 0.9100 0.9700" in own
    assert "crystfel/partialator 5 000 83.3 10.0 20.0 4 000 4.4" in own
    assert "builtin/builtin 5 000 83.3 10.0 20.0 4 000 5.5" in common
    assert "crystfel/partialator 5 000 83.3 10.0 20.0 4 000 6.6" in common


def test_what_is_shared_and_remarked():
    text = text_of(COMPARED)
    assert "Of 6 000 possible reflections all have 700 (11.7 %), and all have 600 (10.0 %) in both half sets." in text
    assert "they share little" in text
    assert "lyso&lt;zyme" in text


def test_work_and_what_is_not_known():
    text = text_of(COMPARED)
    assert "builtin/builtin 300 1 200 (66.9 %) 150 (75.0 %) 160 155 1.0 2.0 – 250 253 512" in text
    assert "crystfel/partialator 300 1 200 (66.9 %) 150 (75.0 %) 160 155 not known – – 3.0 not known 512" in text


def test_pairs():
    assert "builtin/builtin and crystfel/partialator 800 0.9876 12.3 700 0.9911 –" in text_of(COMPARED)


def test_drawings_of_both_kinds_have_one_axis():
    html = comparison_section(COMPARED)
    labels = re.findall(r'<svg role="img" aria-label="([^"]*)"', html)
    assert labels == [
        "CC1/2 by resolution, on all reflections of each",
        "CC1/2 by resolution, on the reflections that all have",
        "Completeness by resolution",
        "Rsplit (%) by resolution, on all reflections of each",
        "Rsplit (%) by resolution, on the reflections that all have",
    ]
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    for first, second in ((0, 1), (3, 4)):
        ticks = [re.findall(r">([\d.]+)</text>", drawings[n])[-8:] for n in (first, second)]
        assert ticks[0] == ticks[1]
    assert all("crystfel/partialator" in drawing for drawing in drawings)


@pytest.mark.parametrize("which", ["own", "common"])
def test_reference_only_where_there_is_one(which):
    compared = copy.deepcopy(COMPARED)
    assert "CC, reference" not in text_of(compared)
    compared["datasets"][0]["reference"] = "truth.hkl"
    for each in compared["datasets"][0]["rows"]:
        each["own"]["overall"] |= {"reference_cc": 0.5, "reference_r1_i": 0.5}
        each[which]["overall"] |= {"reference_cc": 0.9321, "reference_r1_i": 0.222}
    assert "0.9321 22.2" in text_of(compared)


def test_a_merge_without_reflections():
    compared = copy.deepcopy(COMPARED)
    compared["datasets"][0]["rows"][1] |= {"common": None, "frames": None}
    text = text_of(compared)
    assert "crystfel/partialator – – – – – 155" in text


def test_nothing_to_compare():
    assert comparison_section(None) is None
