"""Imports go down only: commands, files and science, nouns; and the science does not touch files."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

_PACKAGE = Path(__file__).parents[2] / "src/sfxflow"

#: Folders with arrays in and arrays out.
_SCIENCE = {
    "ambiguity",
    "geometry_refinement",
    "indexing",
    "integration",
    "merging",
    "peaks",
    "report",
    "simulate",
    "statistics",
}
#: Folders that touch files or start programs: for commands only.
_OUTSIDE = {"clusters", "io", "programs"}
#: Starts the commands.
_ABOVE = {"__main__"}
#: What the science has no use for; `io` is for text in memory.
_FILE_MODULES = {"fabio", "glob", "h5py", "hdf5plugin", "os", "pathlib", "shutil", "subprocess", "tempfile", "yaml"}
_FILE_CALLS = {"open", "load", "loadtxt", "save", "savetxt", "savez", "genfromtxt", "fromfile", "memmap", "tofile"} | {
    f"{verb}_{kind}" for verb in ("read", "write") for kind in ("text", "bytes")
}


def place_of(path):
    """Folder below the package, or the module's name where it lies in the package itself."""
    relative = path.relative_to(_PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(tree):
    """Dotted names of what a module imports, also within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def called(tree):
    """Last names of what a module calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "id", None) or getattr(node.func, "attr", "")


@pytest.fixture(scope="module")
def trees():
    """Path of each module to its syntax tree."""
    found = {path: ast.parse(path.read_text()) for path in sorted(_PACKAGE.rglob("*.py"))}
    assert len(found) > 100
    return found


@pytest.fixture(scope="module")
def arrows(trees):
    """Place to the places that it imports from, each with the modules that do so."""
    found = defaultdict(lambda: defaultdict(set))
    for path, tree in trees.items():
        for name in imported(tree):
            parts = name.split(".")
            if parts[0] == "sfxflow" and len(parts) > 1 and parts[1] != place_of(path):
                found[place_of(path)][parts[1]].add(str(path.relative_to(_PACKAGE)))
    return found


def breaches(arrows, places, forbidden):
    """Arrows from some places to forbidden ones, as words."""
    return [
        f"{who} imports {to}"
        for place in places
        for to in arrows[place].keys() & forbidden
        for who in arrows[place][to]
    ]


def test_every_folder_has_a_floor():
    folders = {path.name for path in _PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == _SCIENCE | _OUTSIDE | {"cli"}


def test_nothing_imports_the_commands(arrows):
    assert breaches(arrows, [place for place in list(arrows) if place not in ("cli", "__main__")], {"cli"}) == []


def test_science_does_not_import_what_touches_files(arrows):
    assert breaches(arrows, _SCIENCE, _OUTSIDE | _ABOVE) == []


def test_nouns_import_nouns_only(arrows):
    nouns = {place for place in list(arrows) if place not in _SCIENCE | _OUTSIDE | _ABOVE | {"cli"}}
    assert {"geometry", "cell", "symmetry", "settings"} <= nouns | {"geometry", "cell"}
    assert breaches(arrows, nouns, _SCIENCE | _OUTSIDE | _ABOVE) == []


def test_programs_and_clusters_know_of_no_formats_and_no_science(arrows):
    assert breaches(arrows, ("programs", "clusters"), _SCIENCE | _ABOVE | {"io"}) == []


def test_the_page_is_above_the_science(arrows):
    assert breaches(arrows, _SCIENCE | _OUTSIDE, {"report"}) == []


def test_imports_of_the_folders_have_no_circles(arrows):
    done, way = set(), []

    def follow(place):
        assert place not in way, " -> ".join([*way[way.index(place) :], place])
        if place in done:
            return
        way.append(place)
        for other in arrows.get(place, ()):
            follow(other)
        way.pop()
        done.add(place)

    for place in list(arrows):
        follow(place)


def test_science_does_not_touch_files(trees):
    found = []
    for path, tree in trees.items():
        if place_of(path) not in _SCIENCE:
            continue
        own = path.relative_to(_PACKAGE)
        found += [f"{own} imports {name}" for name in imported(tree) if name.split(".")[0] in _FILE_MODULES]
        found += [f"{own} calls {name}" for name in called(tree) if name in _FILE_CALLS]
    assert found == []
