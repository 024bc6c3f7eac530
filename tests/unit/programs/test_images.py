import hashlib
import os

import pytest

from sfxflow.programs.images import containers_in_use, find_image, image_problem


def test_an_image_is_found_in_the_first_folder_that_has_it(tmp_path):
    for folder, version in (("one", "0.1.0"), ("two", "0.2.0"), ("three", "0.2.0")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"builtin-{version}.sif").touch()
        (tmp_path / folder / "dials-0.2.0.sif").touch()
    folders = [tmp_path / name for name in ("absent", "one", "two", "three")]
    image, others = find_image("builtin", "0.2.0", folders)
    assert image == tmp_path / "two/builtin-0.2.0.sif"
    assert others == [tmp_path / "one/builtin-0.1.0.sif"]
    assert find_image("crystfel", "0.2.0", folders) == (None, [])


@pytest.fixture
def image(tmp_path):
    """An image, and a stand-in for Apptainer that says what the file `says` holds and exits with the status in `status`."""
    path = tmp_path / "builtin-0.1.0.sif"
    path.write_bytes(b"image")
    program = tmp_path / "apptainer"
    program.write_text(f'#!/bin/sh\ncat {tmp_path}/says; cat {tmp_path}/warns >&2; exit "$(cat {tmp_path}/status)"\n')
    program.chmod(0o755)

    def problem(says="sfxflow 0.1.0\n", warns="INFO: mounting\n", status=0):
        for name, text in (("says", says), ("warns", warns), ("status", str(status))):
            (tmp_path / name).write_text(text)
        return image_problem(program, path, "0.1.0")

    problem.path = path
    return problem


def test_an_image_that_starts(image):
    assert image() == ""


def test_sfxflow_of_another_version(image):
    assert image("sfxflow 0.0.9\n") == "sfxflow in it is 0.0.9, 0.1.0 is expected: make containers"


def test_another_file_than_was_built(image):
    noted = image.path.with_name("builtin-0.1.0.sif.sha256")
    noted.write_text(f"{hashlib.sha256(b'image').hexdigest()}  builtin-0.1.0.sif\n")
    assert image() == ""
    image.path.write_bytes(b"imagf")
    assert "its SHA-256 differs from builtin-0.1.0.sif.sha256; copy it again" in image()


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("FATAL:   image format not recognized!", "the image is not whole: copy it again, or make containers"),
        (
            "ERROR: Failed to create user namespace: not allowed to create user namespace",
            "its administrator allows them",
        ),
        (
            "FATAL: Requesting capability set 0x1: operation not permitted",
            "--apptainer-args=-u starts the container in one",
        ),
        ("FATAL: squashfuse: fuse: failed to open /dev/fuse", "Apptainer can mount no images here"),
        ("FATAL: exec sfxflow failed", "it does not start: FATAL: exec sfxflow failed"),
    ],
)
def test_an_image_that_does_not_start(image, said, remedy):
    text = image("", f"INFO:    Converting\n{said}\nINFO: end\n", 255)
    assert text.startswith(f"it does not start: {said}")
    assert remedy in text


def test_a_program_that_is_not_one(tmp_path):
    (tmp_path / "apptainer").write_text("no program")
    os.chmod(tmp_path / "apptainer", 0o755)
    assert image_problem(tmp_path / "apptainer", tmp_path / "x.sif", "0.1.0").startswith("it does not start: ")


@pytest.mark.parametrize(
    ("config", "needed"),
    [
        ({}, ["builtin"]),
        ({"engines": ["dials"], "mergers": ["builtin"]}, ["builtin", "dials"]),
        ({"engines": None, "mergers": ["process_hkl"]}, ["builtin", "crystfel"]),
        ({"ambiguity": {"program": "ambigator"}, "mergers": ["cctbx_xfel_merge"]}, ["builtin", "crystfel", "dials"]),
    ],
)
def test_containers_in_use(config, needed):
    assert containers_in_use(config) == needed
