"""Peak finding: which pixels of a frame are Bragg spots."""

from sfxflow.peaks.prepare import Prepared, prepare
from sfxflow.peaks.search import PEAK, find_peaks, search_peaks, strongest
from sfxflow.peaks.threshold import estimate_gain, gain_from_statistics

__all__ = [
    "PEAK",
    "Prepared",
    "estimate_gain",
    "find_peaks",
    "gain_from_statistics",
    "prepare",
    "search_peaks",
    "strongest",
]
