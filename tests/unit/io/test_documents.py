"""JSON and YAML files of users: what they hold, or a message that names the file and says what to do."""

import re

import pytest

from sfxflow.errors import InputError
from sfxflow.io.documents import read_json, read_yaml


def test_what_they_hold(tmp_path):
    (tmp_path / "a.json").write_text('{"cell": [1, 2.5], "name": "\N{GREEK SMALL LETTER ALPHA}"}', encoding="utf-8")
    (tmp_path / "a.yaml").write_text("cell: [1, 2.5]\nname: \N{GREEK SMALL LETTER ALPHA}\n", encoding="utf-8")
    expected = {"cell": [1, 2.5], "name": "\N{GREEK SMALL LETTER ALPHA}"}
    assert read_json(tmp_path / "a.json", "remove it") == read_yaml(tmp_path / "a.yaml", "write one") == expected


@pytest.mark.parametrize(
    ("read", "contents", "message"),
    [
        (read_json, None, r"x: can't be read \(No such file or directory\)$"),
        (read_json, b"\xff\xfe", r"x: can't be read \('utf-8' codec can't decode"),
        (read_json, b'{"a": ', r"x: is not JSON \(Expecting value: line 1 column 7 \(char 6\)\); do this$"),
        (read_yaml, None, r"x: can't be read \(No such file or directory\); do this$"),
        (read_yaml, b"a: [1, 2", r"x: is not YAML: while parsing a flow sequence in .* line 1, column 4"),
    ],
)
def test_messages(tmp_path, read, contents, message):
    if contents is not None:
        (tmp_path / "x").write_bytes(contents)
    with pytest.raises(InputError) as error:
        read(tmp_path / "x", "do this")
    assert re.search(message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)
