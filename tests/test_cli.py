"""The command line, on real verbs."""

import subprocess
import sys
from pathlib import Path

import pytest

from ssondo import cli
from ssondo.workflow import verbs

SSONDO = str(Path(sys.executable).parent / "ssondo")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SSONDO, *arguments], capture_output=True, text=True, check=False)


def test_unknown_verb_names_the_nearest() -> None:
    done = run("clustr")
    assert done.returncode == 2
    assert done.stderr == "error: ssondo has no verb clustr; did you mean cluster? (ssondo --help lists them)\n"


def test_every_verb_has_help_with_its_arguments_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in verbs.VERBS:
        assert cli.main([verb, "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"Usage: ssondo {verb}"), verb
        assert len(text.split("\n\n")[1]) > 20, f"{verb} has no summary"


def test_help_lists_every_verb_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in verbs.VERBS:
        line = next(line for line in text.splitlines() if f" {verb} " in line)
        assert len(line.split(verb, 1)[1].strip(" │")) > 10, f"{verb} has no summary"


def test_missing_and_wrong_arguments_are_one_line() -> None:
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


def test_json_that_cannot_be_read_says_where(tmp_path: Path) -> None:
    done = run("initialise", "--student", '{"architecture": ', "--seed", "0", "--out", str(tmp_path / "a"))
    assert done.returncode == 2
    assert "--student" in done.stderr
    assert "not JSON" in done.stderr
    assert done.stderr.count("\n") == 1


def test_fault_of_the_user_is_one_line_and_stands_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    done = run("inventory", "--shards", str(tmp_path / "no.h5"), "--out", str(tmp_path / "b"), "--log", str(log))
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}/no.h5: no such shard; make it with: snakemake {tmp_path}/no.h5\n"
    assert "no such shard" in log.read_text()
    assert not (tmp_path / "b").exists()


def test_bug_is_one_line_with_its_traceback_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("by nought")

    import ssondo.audioset.inventory

    monkeypatch.setattr(ssondo.audioset.inventory, "inventory", broken)
    monkeypatch.setattr(cli, "_command", lambda function: function)
    log = tmp_path / "a.log"
    assert cli.main(["inventory", "--log", str(log)]) == 70
    assert "unexpected ZeroDivisionError: by nought" in log.read_text()
    assert "Traceback" in log.read_text()


def test_missing_package_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'h5py'", name="h5py")

    import ssondo.audioset.inventory

    monkeypatch.setattr(ssondo.audioset.inventory, "inventory", without)
    monkeypatch.setattr(cli, "_command", lambda function: function)
    assert cli.main(["inventory"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the package h5py is missing;")
    assert said.endswith("pip install '.[pipeline,demo]'\n")
