"""Help texts: what a user reads first."""

import pytest

from sfxflow.cli import COMMANDS, SECTIONS, main
from sfxflow.settings import STAGES, defaults


def help_of(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        main([*argv, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_all_commands_are_listed(capsys):
    text = help_of(capsys)
    for command, meaning in COMMANDS.items():
        assert command in text and " ".join(meaning.split()) in " ".join(text.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(capsys, command):
    text = help_of(capsys, command)
    assert text.startswith(f"usage: sfxflow {command}")
    for nothing in ("(default: None)", "(default: )", "(default: [])", "(default: False)"):
        assert nothing not in text


@pytest.mark.parametrize("stage", STAGES)
def test_help_lists_the_settings(capsys, stage):
    command = next(name for name in (stage, *SECTIONS) if name in COMMANDS and stage in SECTIONS.get(name, (stage,)))
    text = help_of(capsys, command)
    for name in defaults(stage):
        assert f"\n  {name} (" in text


def test_unknown_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["peeks"])
    assert ended.value.code == 2
    assert "peaks" in capsys.readouterr().err
