import shutil
from pathlib import Path

import pytest
import yaml

from sfxflow.io.config_schema import config_schema, main, schema_text
from sfxflow.settings import STAGES, defaults, settings_from

ROOT = Path(__file__).parents[3]


def test_schema_and_reference_are_in_step():
    """The committed schema and page are what the settings classes give; `make schema` makes them again."""
    assert main(["--check", "--root", str(ROOT)]) == 0


def test_out_of_step_is_said(tmp_path, capsys):
    for name in ("workflow/schemas/config.schema.yaml", "docs/reference/config.md"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert main(["--check", "--root", str(tmp_path)]) == 0
    path = tmp_path / "workflow/schemas/config.schema.yaml"
    path.write_text(path.read_text().replace('"default": 8', '"default": 9'))
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert "config.schema.yaml: out of step" in capsys.readouterr().err
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0


def objects(schema):
    """Every object schema within a schema."""
    if schema.get("type") == "object":
        yield schema
    for value in [*schema.get("properties", {}).values(), schema.get("additionalProperties")]:
        if isinstance(value, dict):
            yield from objects(value)


def test_no_unknown_key_is_let_through():
    for schema in objects(config_schema()):
        assert "additionalProperties" in schema
        assert schema["additionalProperties"] is False or "properties" in schema["additionalProperties"]


def test_every_property_is_described_and_has_a_default():
    for schema in objects(config_schema()):
        for name, entry in schema.get("properties", {}).items():
            assert entry.get("description"), name
            assert "default" in entry, name


@pytest.mark.parametrize("stage", STAGES)
def test_defaults_of_the_schema_are_those_of_the_stage(stage):
    properties = yaml.safe_load(schema_text())["properties"][stage]["properties"]
    values = {name: entry["default"] for name, entry in properties.items()}
    assert values == defaults(stage)
    assert settings_from(stage, values) == STAGES[stage]()
