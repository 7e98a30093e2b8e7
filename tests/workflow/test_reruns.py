"""Only what is invalid runs again: a change, and the rules that would run after it."""

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from project import Project

from ssondo.storage.atomic_files import digest_path
from ssondo.storage.shards.audio import AudioShard, AudioShardWriter
from ssondo.storage.shards.status import Status

pytestmark = [pytest.mark.slow, pytest.mark.workflow]

TABLES = {"table1", "table2", "fig2", "report"}
SCORED = {"probe", "scores", *TABLES}
TRAINED = {"distill", "embed_task", *SCORED}


def edit(project: Project, file: str, old: str, new: str) -> None:
    path = project.folder / file
    text = path.read_text()
    assert old in text, f"{old!r} is not in {file}"
    path.write_text(text.replace(old, new, 1))


def append(project: Project, module: str) -> None:
    path = project.folder / "ssondo" / module
    path.write_text(path.read_text() + "\n_CHANGED = 1\n")


def test_finished_workflow_has_nothing_to_do(project: Project) -> None:
    assert project.planned() == {}


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("probe/probe.py", SCORED),
        ("distill/losses.py", TRAINED),
        ("distill/base_loss.py", TRAINED | {"supervise"}),
        ("inference/wrapper.py", set()),
        ("report/score_table.py", TABLES),
        ("report/table1.py", {"table1", "report"}),
        # The tiny Table 2 draws clips without clusters.
        ("cluster/cluster.py", {"cluster", *TRAINED} - {"table2"}),
        ("distill/sampler.py", TRAINED | {"supervise", "initialise"}),
        ("students/dymn.py", set()),
        ("students/mobilenetv3.py", TRAINED | {"supervise", "initialise"}),
        ("storage/shards/embedding.py", {"inventory", "embed", "cluster", *TRAINED, "supervise", "initialise"}),
        ("storage/shards/clusters.py", {"cluster", *TRAINED}),
        ("report/scores.py", {"scores", *TABLES}),
        ("audioset/availability.py", {"availability", "report"}),
        ("report/page_run.py", {"report"}),
        ("config/__init__.py", set()),
        ("config/audioset.py", set()),
        ("workflow/rules/audioset.py", set()),
        # What says which machine computed something computes nothing.
        ("system/hardware.py", set()),
        ("system/progress.py", set()),
        ("storage/atomic_write.py", set()),
        ("cli.py", set()),
    ],
)
def test_edited_module_reruns_what_it_computes(project: Project, module: str, rules: set[str]) -> None:
    append(project, module)
    assert set(project.planned()) == rules


def test_edited_docstring_or_comment_reruns_nothing(project: Project) -> None:
    edit(project, "ssondo/storage/shards/audio.py", '"""Audio shards: encoded', '"""HDF5 files of encoded')
    edit(project, "ssondo/probe/probe.py", "\nimport ", "\n# A remark.\nimport ")
    assert project.planned() == {}


def test_probe_setting_reruns_probes_only(project: Project) -> None:
    project.configure(lambda config: config["probe"].update(steps=60))
    assert set(project.planned()) == SCORED


def test_distill_setting_reruns_distillation_only(project: Project) -> None:
    project.configure(lambda config: config["distill"].update(learning_rate=1e-3))
    assert set(project.planned()) == TRAINED


def test_memory_of_clustering_which_decides_what_is_fitted_on_clusters_again(project: Project) -> None:
    project.configure(lambda config: config["cluster"].update(memory_mb=900))
    assert set(project.planned()) == {"cluster", *TRAINED} - {"table2"}


def test_settings_swapped_in_value_rerun_their_rule(project: Project) -> None:
    project.configure(lambda config: config["distill"].update(epochs=3, decay_start_epoch=2))
    project.snakemake("--touch")
    project.configure(lambda config: config["distill"].update(epochs=2, decay_start_epoch=3))
    assert "distill" in project.planned()


def test_longer_list_of_cluster_counts_runs_the_new_one_only(project: Project) -> None:
    project.configure(lambda config: config["fig2"].update(n_clusters=[0, 3, 4]))
    planned = project.planned()
    assert planned == {"cluster": 1, "distill": 1, "embed_task": 1, "probe": 1, "scores": 1, "fig2": 1, "report": 1}


def test_new_seed_runs_that_seed_only(project: Project) -> None:
    project.configure(lambda config: config["table1"].update(seeds=[0, 1]))
    planned = project.planned()
    assert planned == {
        "distill": 1,
        "supervise": 1,
        "initialise": 1,
        "embed_task": 6,
        "probe": 6,
        "scores": 1,
        "table1": 1,
        "report": 1,
    }


def test_threads_resources_logs_and_messages_rerun_nothing(project: Project) -> None:
    for file in sorted((project.folder / "rules").glob("*.smk")):
        text = file.read_text()
        text = re.sub(r"threads: \d+", "threads: 3", text)
        text = re.sub(r"mem_mb=growing\([\d_]+\)", "mem_mb=growing(1_234)", text)
        text = text.replace('paths.log("', 'paths.log("elsewhere/').replace(
            'paths.benchmark("', 'paths.benchmark("new/'
        )
        file.write_text(re.sub(r'message:\n +"', 'message:\n        "Now ', text))
    machine = {"num_workers": 1, "cache_mb": 50, "embed_batch_size": 3}
    project.configure(lambda config: config["runtime"].update(machine, checkpoint_minutes=3, compile=True))
    assert project.planned() == {}
    # The report shows the settings, also those that change nothing else.
    project.configure(lambda config: config["audioset"].update(max_failed_share=0.5))
    assert set(project.planned()) == {"report"}


def test_edited_environment_file_reruns_nothing(project: Project) -> None:
    path = project.folder / "envs" / "ssondo.yaml"
    path.write_text(path.read_text() + "      - six\n")
    assert project.planned() == {}


def test_touched_files_rerun_nothing(project: Project) -> None:
    files = [path for path in project.results.rglob("*") if path.is_file()]
    random.Random(0).shuffle(files)
    for path in files:
        os.utime(path)
    # Below this size content decides; above it only what the rules themselves do about it.
    limit = 100_000
    assert sum(path.stat().st_size > limit for path in files if path.suffix == ".h5") > 3
    assert project.planned("--max-checksum-file-size", str(limit)) == {}


def test_shard_remade_with_the_same_content_reruns_nothing_behind_it(project: Project) -> None:
    shard = "results/tiny/data/audio/train-0000.h5"
    before = (project.folder / f"{shard}.digest").read_text()
    project.snakemake("--force", shard)
    assert (project.folder / f"{shard}.digest").read_text() == before
    assert project.planned() == {}


@pytest.mark.parametrize("stage", ["fetched", "audio", "embeddings/yamnet"])
def test_deleted_shard_is_made_again_with_what_depends_on_it(project: Project, stage: str) -> None:
    (project.results / "data" / stage / "train-0001.h5").unlink()
    planned = project.planned()
    chain = ["fetch", "resample", "embed"][["fetched", "audio", "embeddings/yamnet"].index(stage) :]
    assert [planned.get(rule) for rule in chain] == [1] * len(chain)
    assert planned["cluster"] == 1
    assert planned["distill"] == 3
    # What there is of the corpus is counted in the sound, not in embeddings of it.
    assert planned.get("availability", 0) == (stage != "embeddings/yamnet")
    assert set(planned) <= {*chain, "inventory", "availability", "cluster", "supervise", "initialise", *TRAINED}


@pytest.mark.parametrize("name", ["availability.csv", "available-train.txt"])
def test_deleted_file_of_the_availability_is_made_again_from_the_shards_that_are_there(
    project: Project, name: str
) -> None:
    (project.results / "data" / "availability" / name).unlink()
    assert set(project.planned()) == {"availability", "report"}


def replace_clip(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Write the shard again with the first clip's sound changed."""
    with AudioShard(path) as shard:
        clips = [(name, shard.blob(row), Status(shard.status[row])) for row, name in enumerate(shard.clip_ids)]
    name, blob, status = clips[0]
    clips[0] = (name, change(blob), status)
    with AudioShardWriter(path, sample_rate=0, settings={}, producer="test") as writer:
        for name, blob, status in clips:
            writer.add(name, blob, status=status)


def test_changed_clip_reruns_its_shard_and_what_follows(project: Project) -> None:
    replace_clip(project.results / "data" / "fetched" / "train-0001.h5", lambda blob: blob[:-2] + b"\x01\x02")
    planned = project.planned()
    assert planned["resample"] == 1
    assert planned["embed"] == 1
    assert "fetch" not in planned
    assert {"availability", "cluster", "distill", "supervise", "initialise", "probe", "table1"} <= set(planned)


def test_new_segment_in_a_list_changes_its_own_shard_only(project: Project) -> None:
    project.configure(lambda config: config["audioset"]["source"].update(n_train=61))
    project.snakemake("--until", "index")
    # The demo's eval clips are numbered after its training clips, so that shard is another one, too.
    text = project.snakemake("--dry-run").stdout
    assert sorted(re.findall(r"Fetching the clips of (\S+)", text)) == ["eval-0000", "train-0000"]


def test_changed_metric_of_a_task_changes_its_digest(tmp_path: Path) -> None:
    digests = set()
    for metric in ("accuracy", "map"):
        path = tmp_path / f"{metric}.h5"
        with AudioShardWriter(path, sample_rate=32000, settings={"metric": metric}) as writer:
            writer.add("a", b"sound")
        digests.add(digest_path(path).read_text())
    assert len(digests) == 2


def test_sound_of_another_working_directory_is_made_again_by_nobody_and_named(project: Project) -> None:
    """Snakemake compares settings with its own records only."""
    project.configure(lambda values: values["audioset"].update(clip_s=1.5))
    assert project.planned()["resample"] > 0
    (project.folder / ".snakemake").rename(project.folder / "elsewhere")
    refused = project.snakemake("--dry-run", check=False)
    assert refused.returncode == 1
    (line,) = [line for line in refused.stderr.splitlines() if "error" in line]
    assert line.startswith("error: config: audioset.clip_s is 1.5, but results/tiny/data/audio/train-0000.h5 has 1.28")
    assert "it was made in another working directory or with another configuration" in line
