"""What the workflow does with --sdm apptainer, and what it says of images that are wrong; a stand-in for Apptainer notes how it is called."""

import json
import os
import shutil
import struct
import sys
from pathlib import Path

import pytest

import sfxflow

ROOT = Path(__file__).parents[2]
VERSION = sfxflow.__version__
IMAGE = f"containers/builtin-{VERSION}.sif"

#: Runs what it is to run in a container outside of one; what an image is labelled with stands at the end of the file.
APPTAINER = """\
#!{python} -SE
import json, os, sys
arguments = sys.argv[1:]
with open({notes!r}, "a") as handle:
    handle.write(json.dumps([os.environ.get("APPTAINER_BIND", ""), arguments]) + "\\n")
if "--version" in arguments[:1]:
    print("apptainer version 1.4.5")
elif arguments[0] == "inspect":
    label = open(arguments[-1], "rb").read()[128:].decode()
    if not label:
        sys.exit("FATAL: no labels")
    print("org.label-schema.usage: \\norg.opencontainers.image.version: " + label)
else:
    after = next(i for i, word in enumerate(arguments) if word.endswith(".sif")) + 1
    os.execvp(arguments[after], arguments[after:])
"""


def write_image(path, version=VERSION, missing=0):
    """A file with the header of an image; what it holds is its label, of which bytes may be missing at the end."""
    label = version.encode()
    header = bytearray(128)
    header[32:42] = b"SIF_MAGIC\0"
    header[112:128] = struct.pack("<qq", 128, len(label) + missing)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(header) + label)


@pytest.fixture
def with_images(experiment, tmp_path_factory):
    """An experiment beside a copy of the repository that has no images, and the stand-in for Apptainer."""
    repository = tmp_path_factory.mktemp("repository")
    shutil.copy(ROOT / "Snakefile", repository)
    shutil.copytree(ROOT / "workflow", repository / "workflow")
    experiment.snakefile = repository / "Snakefile"
    experiment.runs = experiment.runs[1:]
    del experiment.config["datasets"]["thaumatin"]
    experiment.runs = [row | {"mask": "raw/mask.h5"} for row in experiment.runs if row["dataset"] == "lysozyme"]
    program = experiment.folder / "bin/apptainer"
    program.parent.mkdir()
    program.write_text(APPTAINER.format(python=sys.executable, notes=str(experiment.folder / "notes")))
    program.chmod(0o755)
    return experiment


def in_containers(experiment):
    """How Apptainer was started for the jobs: what is bound, and its arguments."""
    noted = [json.loads(line) for line in (experiment.folder / "notes").read_text().splitlines()]
    return [(bound.split(","), arguments) for bound, arguments in noted if arguments[0] == "exec"]


def refused(experiment, *options):
    text = experiment.refused("--sdm", "apptainer", *options)
    assert not (experiment.folder / "calls.jsonl").exists()
    return text


# ---- what works -----------------------------------------------------------------------------------------------------


def test_every_job_runs_in_the_image_of_its_engine(with_images):
    write_image(with_images.folder / IMAGE)
    with_images.snakemake("--sdm", "apptainer")
    started = in_containers(with_images)
    assert len(started) == len(with_images.calls())
    assert {arguments[arguments.index("-c") - 2] for _, arguments in started} == {IMAGE}


def test_an_image_of_the_repository_is_used_elsewhere(with_images):
    """The working directory need not hold images: one place of them is enough."""
    image = with_images.snakefile.parent / IMAGE
    write_image(image)
    with_images.snakemake("--sdm", "apptainer")
    assert all(str(image) in arguments for _, arguments in in_containers(with_images))


def test_the_working_directory_s_own_image_comes_first(with_images):
    write_image(with_images.snakefile.parent / IMAGE)
    write_image(with_images.folder / IMAGE)
    with_images.snakemake("--sdm", "apptainer")
    assert all(IMAGE in arguments for _, arguments in in_containers(with_images))


def test_jobs_see_the_frames_wherever_they_are(with_images, tmp_path_factory):
    """A container sees the working directory only: folders of inputs, the places that links lead to, and that of temporary files are bound."""
    write_image(with_images.folder / IMAGE)
    outside = tmp_path_factory.mktemp("beamline")
    (outside / "raw").mkdir()
    shutil.move(with_images.folder / "raw/b.h5", outside / "raw/b.h5")
    with_images.runs[0]["frames"] = str(outside / "raw/b.h5")
    linked = tmp_path_factory.mktemp("linked")
    shutil.move(with_images.folder / "raw/two.geom", linked / "real.geom")
    (with_images.folder / "raw/two.geom").symlink_to(linked / "real.geom")
    results = tmp_path_factory.mktemp("scratch")
    (with_images.folder / "results").symlink_to(results)
    temporary = tmp_path_factory.mktemp("temporary")
    with_images.environment = {"TMPDIR": str(temporary), "APPTAINER_BIND": str(outside.parent / "given")}
    (outside.parent / "given").mkdir(exist_ok=True)
    with_images.snakemake("--sdm", "apptainer")
    given, *bound = in_containers(with_images)[0][0]
    assert given == str(outside.parent / "given")
    assert sorted(bound) == sorted(str(path) for path in (outside / "raw", linked, results, temporary))


def test_nothing_is_asked_of_images_without_the_option(with_images):
    (with_images.folder / "bin/apptainer").unlink()
    assert "builtin_peaks" in with_images.planned()


def test_only_images_of_the_engines_in_use_are_needed(with_images):
    write_image(with_images.folder / IMAGE)
    assert "builtin_peaks" in with_images.planned("--sdm", "apptainer")
    with_images.config["mergers"] = ["builtin", "partialator"]
    assert f"containers/crystfel-{VERSION}.sif: no such image" in refused(with_images)


def test_an_image_of_another_version_works_again(with_images):
    """The name carries the version, and the name is what Snakemake compares."""
    write_image(with_images.folder / IMAGE)
    with_images.snakemake("--sdm", "apptainer")
    assert with_images.planned("--sdm", "apptainer") == {}
    rules = with_images.snakefile.parent / "workflow/rules/containers.smk"
    text = rules.read_text()
    assert f'IMAGES_VERSION = "{VERSION}"' in text
    rules.write_text(text.replace(f'IMAGES_VERSION = "{VERSION}"', 'IMAGES_VERSION = "9.9.9"'))
    write_image(with_images.folder / "containers/builtin-9.9.9.sif", "9.9.9")
    assert {"builtin_peaks", "builtin_merging", "report"} <= set(with_images.planned("--sdm", "apptainer"))


# ---- what is wrong --------------------------------------------------------------------------------------------------


def test_no_image(with_images):
    text = refused(with_images)
    assert f"{IMAGE}: no such image; `make containers` in {with_images.snakefile.parent} builds it" in text


def test_an_image_of_another_version_only(with_images):
    write_image(with_images.folder / "containers/builtin-0.0.9.sif", "0.0.9")
    assert f"{IMAGE}: no such image; there is containers/builtin-0.0.9.sif, of another version; `make" in refused(
        with_images
    )


def test_an_image_that_was_renamed(with_images):
    write_image(with_images.folder / IMAGE, "0.0.9")
    assert f"{IMAGE}: it is of version 0.0.9, and {VERSION} is expected; use the image of this version" in refused(
        with_images
    )


def test_an_image_without_labels(with_images):
    write_image(with_images.folder / IMAGE, "")
    assert f"{IMAGE}: apptainer can't read its version, and {VERSION} is expected" in refused(with_images)


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "folder"])
def test_a_corrupt_image(with_images, damage):
    path = with_images.folder / IMAGE
    write_image(path, missing=1 if damage == "cut" else 0)
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage != "cut":
        path.write_text("<html>not found</html>" * 20 if damage == "text" else "")
    assert f"{IMAGE}: not an image of Apptainer, or only a part of one; copy it again, or remove it: `make" in refused(
        with_images
    )


@pytest.mark.parametrize(
    "option", ["--bind /nowhere/data", "-B /nowhere/data:/data:ro", "--bind=/tmp,/nowhere/data", "-B/nowhere/data"]
)
def test_a_path_that_does_not_exist_is_bound(with_images, option):
    write_image(with_images.folder / IMAGE)
    text = refused(with_images, f"--apptainer-args={option}")
    assert "--apptainer-args: /nowhere/data can't be bound: there is no such file or folder on this machine" in text


def test_a_path_of_the_environment_that_does_not_exist(with_images):
    write_image(with_images.folder / IMAGE)
    with_images.environment = {"APPTAINER_BIND": "/tmp:/data,/nowhere"}
    assert "APPTAINER_BIND: /nowhere can't be bound: there is no such file or folder on this machine" in refused(
        with_images
    )


def test_options_that_can_not_be_read(with_images):
    write_image(with_images.folder / IMAGE)
    assert "--apptainer-args: --bind '/data: No closing quotation" in refused(
        with_images, "--apptainer-args=--bind '/data"
    )


def test_a_folder_that_apptainer_can_not_bind(with_images, tmp_path_factory):
    write_image(with_images.folder / IMAGE)
    outside = tmp_path_factory.mktemp("raw") / "a,b"
    outside.mkdir()
    shutil.move(with_images.folder / "raw/b.h5", outside)
    with_images.runs[0]["frames"] = str(outside / "b.h5")
    assert f"{outside}: Apptainer can't bind a folder with a comma or a colon in its name" in refused(with_images)


def test_an_image_in_a_folder_with_a_space(with_images, tmp_path_factory):
    repository = tmp_path_factory.mktemp("my") / "flow of mine"
    shutil.copytree(with_images.snakefile.parent, repository)
    with_images.snakefile = repository / "Snakefile"
    write_image(repository / IMAGE)
    text = refused(with_images)
    assert (
        f"no image from a folder with a space in its name; link it: ln -s '{repository}/containers' containers" in text
    )


def test_no_apptainer(with_images):
    """Neither it nor its ancestor on PATH."""
    write_image(with_images.folder / IMAGE)
    (with_images.folder / "bin/apptainer").unlink()
    found = os.environ["PATH"].split(os.pathsep)
    programs = ("apptainer", "singularity")
    without = [path for path in found if not any(Path(path, name).exists() for name in programs)]
    with_images.environment = {"PATH": os.pathsep.join([str(with_images.folder / "bin"), *without])}
    text = refused(with_images)
    assert (
        "--sdm apptainer: there is no apptainer on PATH of this machine; its administrator or package manager installs it"
        in text
    )
