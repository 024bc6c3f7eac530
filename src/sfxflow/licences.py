"""Programs of others whose terms each user has to accept: indexing methods of CrystFEL that run MOSFLM, XDS or DirAx.

Neither sfxflow nor CrystFEL contains them, nor do sfxflow's containers. They run only where the config says who accepted their terms. The
built-in engine, and CrystFEL's own methods (asdf, taketwo, xgandalf, ...), need no such line.
"""

import json
from typing import NamedTuple

from sfxflow.errors import InputError


class Licence(NamedTuple):
    """What a user has to know of a program's terms.

    Attributes
    ----------
    program : str
    read : str
        What is to be read before the terms are accepted, and where.
    had_from : str
        Where the program is had.
    executables : tuple of str
        Names by which CrystFEL starts it.
    """

    program: str
    read: str
    had_from: str
    executables: tuple


#: Indexing method of CrystFEL to the licence of the program that it runs.
LICENCES = {
    "mosflm": Licence(
        "MOSFLM",
        "the licence that comes with iMosflm (https://www.mrc-lmb.cam.ac.uk/mosflm/imosflm/), or that of CCP4 (https://www.ccp4.ac.uk)",
        "iMosflm of the MRC Laboratory of Molecular Biology, or CCP4, which contains it",
        ("mosflm", "ipmosflm"),
    ),
    "xds": Licence(
        "XDS",
        "its terms of use (https://xds.mr.mpg.de, https://download.dectris.cloud/xds/help/terms-of-use.html)",
        "the web pages of XDS: https://xds.mr.mpg.de",
        ("xds",),
    ),
    "dirax": Licence(
        "DirAx",
        "the conditions on its web page (http://www.crystal.chem.uu.nl/distr/dirax/)",
        "the web page of DirAx: http://www.crystal.chem.uu.nl/distr/dirax/",
        ("dirax",),
    ),
}


def licensed_methods(indexing_methods):
    """Those methods whose program has terms to accept, in their order, each once.

    Parameters
    ----------
    indexing_methods : str or iterable of str
        As indexamajig takes them: 'mosflm,asdf', 'xds-nolatt-cell'.

    Returns
    -------
    list of str
        Keys of `LICENCES`.
    """
    if isinstance(indexing_methods, str):
        indexing_methods = indexing_methods.split(",")
    names = [method.strip().partition("-")[0].lower() for method in indexing_methods]
    return [name for name in dict.fromkeys(names) if name in LICENCES]


def accepted_licences(text):
    """The config's section `licences` from the JSON text that a rule passes.

    Raises
    ------
    InputError
        It is something else.
    """
    try:
        accepted = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise InputError(f"--licences: not JSON: {error}") from None
    if not isinstance(accepted, dict) or not all(isinstance(entry, dict) for entry in accepted.values()):
        raise InputError('--licences: {"mosflm": {"accepted_by": "YOUR NAME", "date": "2026-01-31"}} is expected')
    return accepted


def require_licences(indexing_methods, accepted, where="crystfel.indexing"):
    """Refuse methods whose program's terms nobody accepted.

    Parameters
    ----------
    indexing_methods : str or iterable of str
        As indexamajig takes them.
    accepted : dict
        The config's section `licences`: {'mosflm': {'accepted_by': 'A. Name', 'date': '2026-11-21'}}.
    where : str
        The setting, for the message.

    Returns
    -------
    dict
        Method to `accepted_by` and `date`, of those that are used: for the provenance.

    Raises
    ------
    InputError
        It says whose licence it is, what is to be read, and which line to write.
    """
    used = licensed_methods(indexing_methods)
    for name in used:
        if not str((accepted.get(name) or {}).get("accepted_by") or "").strip():
            raise InputError(refusal(name, where))
    return {name: dict(accepted[name]) for name in used}


def refusal(name, where):
    """What is said where the terms of a program are not accepted.

    Parameters
    ----------
    name : str
        Of `LICENCES`.
    where : str
        The setting that asks for it.
    """
    licence = LICENCES[name]
    return (
        f"{where}: {name} runs {licence.program}, whose terms each user has to accept. Read {licence.read}. If you accept them, write "
        f"into the config: licences: {{{name}: {{accepted_by: YOUR NAME, date: 2026-01-31}}}}. "
        "The engine builtin and CrystFEL's method asdf need no such line"
    )
