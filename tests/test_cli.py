"""The command line, tested with the real commands."""

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssondo import cli
from ssondo.system.registry import look_up
from ssondo.workflow import verbs

SSONDO = str(Path(sys.executable).parent / "ssondo")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SSONDO, *arguments], capture_output=True, text=True, check=False)


def described_parameters(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the descriptions in the help of a command by parameter, without types, defaults and "[required]"."""
    assert cli.main([command, "--help"]) == 0
    lines = [line.strip("│* ") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    descriptions = {}
    for line in lines:
        match = re.fullmatch(r"((?:--)?[\w-]+)(?: --no-[\w-]+)?(?: [A-Z]+(?:\.\.\.)?)?(?:  +(.*))?", line)
        assert match, line
        descriptions[match[1]] = re.sub(r" *\[(required|default: .*)\]$", "", match[2] or "")
    return descriptions


def test_unknown_command_is_answered_with_the_most_similar_one() -> None:
    done = run("clustr")
    assert done.returncode == 2
    assert done.stderr == (
        "error: the command 'clustr' does not exist (did you mean 'cluster'?); ssondo --help lists all commands\n"
    )


@pytest.mark.parametrize("command", verbs.COMMANDS)
def test_help_describes_every_parameter_in_words_that_stand_on_their_own(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # One line for each parameter.
    function = look_up("command", command, verbs.COMMANDS)
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    n_options = sum(
        len(dataclasses.fields(p.annotation)) if dataclasses.is_dataclass(p.annotation) else 1 for p in parameters
    )
    descriptions = described_parameters(command, capsys)
    assert len(descriptions) == n_options
    fragments = ("Of ", "For ", "As ", "Likewise", "Like ", "To ", "The same")
    poor = {
        name: text
        for name, text in descriptions.items()
        if not (text[:1].isupper() and text.endswith(".") and len(text.split()) >= 3) or text.startswith(fragments)
    }
    assert poor == {}


@pytest.mark.parametrize("command", verbs.COMMANDS)
def test_help_begins_with_the_usage_and_a_summary(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    usage, summary, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"Usage: ssondo {command} ")
    assert summary[0].isupper()
    assert summary.rstrip().endswith(".")


def test_help_lists_every_command_by_stage_with_its_summary(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    headings = [match[1] for line in lines if (match := re.match(r"╭─ (.+?) ─", line))]
    assert headings == list(cli._STAGES.values())
    listed = [line.strip("│ ").split(maxsplit=1) for line in lines if line.startswith("│")]
    assert {name for name, _ in listed} == set(verbs.COMMANDS)
    assert [summary for _, summary in listed if not re.fullmatch(r"[A-Z].{20,}\.", summary)] == []


def test_missing_or_invalid_arguments_are_reported_in_one_line() -> None:
    for arguments, part in [
        (["inventory", "--shards", "a.h5"], "--out"),
        (["initialise", "--student", "{}", "--out", "a", "--seed", "x"], '--seed: unable to convert "x" into int'),
        (["inventory", "--shardz", "a.h5", "--out", "b"], "--shards"),
    ]:
        done = run(*arguments)
        assert done.returncode == 2
        assert part in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def test_invalid_json_is_reported_with_the_option_that_has_it(tmp_path: Path) -> None:
    done = run("initialise", "--student", '{"architecture": ', "--seed", "0", "--out", str(tmp_path / "a"))
    assert done.returncode == 2
    assert "--student" in done.stderr
    assert "not JSON" in done.stderr
    assert done.stderr.count("\n") == 1


def test_error_of_the_user_is_one_line_that_is_also_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    done = run("inventory", "--shards", str(tmp_path / "no.h5"), "--out", str(tmp_path / "b"), "--log", str(log))
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}/no.h5: no such shard; make it with: snakemake {tmp_path}/no.h5\n"
    assert "no such shard" in log.read_text()
    assert not (tmp_path / "b").exists()


def test_bug_is_one_line_and_its_traceback_is_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("division by zero")

    import ssondo.audioset.inventory

    monkeypatch.setattr(ssondo.audioset.inventory, "inventory", broken)
    monkeypatch.setattr(cli, "_command", lambda function: function)
    log = tmp_path / "a.log"
    assert cli.main(["inventory", "--log", str(log)]) == 70
    assert "unexpected ZeroDivisionError: division by zero" in log.read_text()
    assert "Traceback" in log.read_text()


def test_missing_package_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'h5py'", name="h5py")

    import ssondo.audioset.inventory

    monkeypatch.setattr(ssondo.audioset.inventory, "inventory", without)
    monkeypatch.setattr(cli, "_command", lambda function: function)
    assert cli.main(["inventory"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: the package h5py is not installed;")
    assert message.endswith("pip install '.[pipeline,demo]'\n")


def test_package_is_found_next_to_a_folder_of_its_name(tmp_path):
    """The folder is like a clone: in its parent folder, Python must not take it for a package without code."""
    (tmp_path / "ssondo").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "from ssondo import get_ssondo"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
