"""The workflow fetches clips from a server on this machine instead of YouTube."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from media_server import serving
from project import Project
from test_import import CONFIG, clip_statuses

from ssondo.storage.segments import shard_of

pytestmark = [pytest.mark.slow, pytest.mark.workflow]

IDS = [f"_-{n:02d}abcdefg" for n in range(9)]
PRIVATE, BROKEN = IDS[2], IDS[5]


def training_availability(project: Project) -> dict[str, Any]:
    """Return the part of the availability report about the training clips."""
    path = project.results / "data" / "availability" / "availability.json"
    counts: dict[str, Any] = json.loads(path.read_text())["train"]
    return counts


def test_clips_are_requested_once_even_if_their_shards_are_made_again(tmp_path: Path) -> None:
    (tmp_path / "fetch.yaml").write_text(CONFIG)
    project = Project.make(tmp_path / "project", tmp_path / "fetch.yaml")
    for name, part in (("train", IDS[:8]), ("eval", IDS[8:])):
        (project.folder / f"{name}.csv").write_text("".join(f"{clip},3,4,\n" for clip in part))
    with serving() as server:
        server.behaviour = {PRIVATE: 410, BROKEN: 500}
        source = {"kind": "youtube", "url_template": server.url, "requests_per_hour": 100_000, "max_jobs": 2}
        source |= {"sleep_s": 0, "max_tries_per_clip": 1}
        project.configure(lambda config: config["audioset"].update(source=source, max_failed_share=0.5))
        project.snakemake("--until", "resample", "--quiet", "host", "reason")
        assert server.count_requests() == dict.fromkeys(IDS, 1)
        expected = dict.fromkeys(IDS, "OK") | {PRIVATE: "UNAVAILABLE", BROKEN: "FAILED"}
        assert clip_statuses(project) == expected
        project.snakemake("availability", "--quiet", "host", "reason")
        reasons = training_availability(project)["reasons"]
        assert {status: list(of.values()) for status, of in reasons.items()} == {"UNAVAILABLE": [1], "FAILED": [1]}
        assert list(reasons["UNAVAILABLE"]) == ["removed (HTTP 410)"]

        # If fetch runs again, as for a new version of its code, it requests only clips with a temporary failure.
        server.requested, server.behaviour = [], {}
        project.snakemake("--forcerun", "fetch", "--until", "fetch", "--quiet", "host", "reason")
        assert server.requested == [BROKEN]

        # After clips with one reason are reset, only the shards that contain such clips run.
        server.requested = []
        done = project.ssondo("retry", "--reason", "removed (HTTP 410)", "--folder", "results/tiny/data/fetched")
        assert done.returncode == 0, done.stderr
        planned = project.snakemake("--dry-run", "--until", "fetch").stdout
        assert re.findall(r"Fetching the clips of (\S+)", planned) == [f"train-{shard_of(PRIVATE, 3):04d}"]
        project.snakemake("--until", "resample", "--quiet", "host", "reason")
        assert server.requested == [PRIVATE]
        assert set(clip_statuses(project).values()) == {"OK"}
        assert project.planned("--until", "resample") == {}
        assert project.planned("availability") == {"availability": 1}
        project.snakemake("availability", "--quiet", "host", "reason")
        assert (training_availability(project)["n_ok"], training_availability(project)["reasons"]) == (8, {})
