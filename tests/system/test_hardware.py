"""The description of the machine in results, and that it changes nothing else."""

import getpass
import importlib
import json
import logging
import platform
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from score_files import distilled, model, write_score
from toy_corpus import arguments, digest, killed_at, run

from ssondo.audio.codec import encode_flac
from ssondo.probe.embed_task import embed_task
from ssondo.probe.probe import probe
from ssondo.report.scores import scores
from ssondo.report.table1 import table1
from ssondo.report.table2 import table2
from ssondo.storage.atomic_files import digest_path
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.embedding import EmbeddingShard
from ssondo.students.checkpoint import load_student
from ssondo.system import hardware as module
from ssondo.system.hardware import describe_machine, memory_bytes, n_cores, processor
from ssondo.teachers.embed import embed

ELSEWHERE = {"python": "3.14", "processor": "Another one", "cores": "77", "device": "cuda", "gpu": "NVIDIA Z9"}
WRITERS = ("distill.training", "distill.initialise", "teachers.embed", "probe.embed_task", "probe.probe")


@pytest.fixture
def elsewhere(monkeypatch):
    """Pretend to run on another machine."""

    def switch():
        for name in WRITERS:
            monkeypatch.setattr(
                importlib.import_module(f"ssondo.{name}"), "describe_machine", lambda *_: dict(ELSEWHERE)
            )

    return switch


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A machine whose system files are read from a folder, which is empty at first."""
    for name, path in (("_CPU_INFO", "cpuinfo"), ("_DRIVER", "driver"), ("_OWN_CGROUP", "cgroup"), ("_CGROUPS", "sys")):
        monkeypatch.setattr(module, name, tmp_path / path)
    return tmp_path


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_processor_cores_and_memory_of_this_machine_are_described():
    found = describe_machine()
    assert found["device"] == "cpu"
    assert found["machine"] == f"{platform.system()} {platform.machine()}"
    assert found["processor"] == processor() != ""
    assert int(found["cores"]) == n_cores() >= 1
    assert re.fullmatch(r"[\d.e+]+ GiB", found["memory"])
    assert found["torch"] == torch.__version__
    assert "gpu" not in found
    assert describe_machine("cpu", 4)["processes"] == "4"


def test_processor_model_is_read_from_cpuinfo(system):
    write(system, {"cpuinfo": "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC  7763\n\nmodel name\t: other\n"})
    assert processor() == "AMD EPYC 7763"


def test_limits_of_a_job_are_described_instead_of_the_machine(system, monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert n_cores() == 64
    whole = memory_bytes()
    write(system, {"cgroup": "1:cpuset:/x\n0::/slurm/job_7/step_0\n", "sys/slurm/job_7/cpu.max": "250000 100000\n"})
    write(system, {"sys/slurm/memory.max": f"{3 << 20}\n", "sys/slurm/job_7/memory.max": "max\n"})
    write(system, {"sys/slurm/job_7/step_0/cpu.max": "max 100000\n"})
    assert n_cores() == 3
    assert memory_bytes() == 3 << 20 < whole


@pytest.mark.parametrize("system_name", ["Linux", "Darwin", "Elsewhere"])
def test_values_that_cannot_be_read_are_omitted(system, monkeypatch, system_name):
    def no(*_, **__):
        raise OSError

    monkeypatch.setattr(module.platform, "system", lambda: system_name)
    monkeypatch.setattr(module.platform, "processor", lambda: "")
    monkeypatch.delattr(module.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(module.os, "cpu_count", lambda: None)
    monkeypatch.setattr(module.os, "sysconf", no, raising=False)
    monkeypatch.setattr(module.subprocess, "run", no)
    (system / "cpuinfo").mkdir()  # cannot be read as a file
    write(system, {"cgroup": "0::/../../up\n", "sys/cpu.max": "nonsense", "sys/memory.max": "-1"})
    found = describe_machine()
    assert found["processor"] == platform.machine()
    assert found["cores"] == "1"
    assert "memory" not in found


def test_processor_of_a_mac_is_read_with_sysctl(system, monkeypatch):
    monkeypatch.setattr(module.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="Apple M9\n"))
    assert processor() == "Apple M9"


def test_gpu_is_described(system, monkeypatch):
    properties = SimpleNamespace(name="NVIDIA H100", total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: {"cuda:1": properties}[device])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    text = (
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\nGCC version:  gcc 12.3\n"
    )
    write(system, {"driver": text})
    found = describe_machine("cuda:1", 8)
    expected = {"gpu": "NVIDIA H100", "gpu_memory": "80 GiB", "driver": "570.124.06", "cuda": "13.0", "device": "cuda"}
    assert {name: found.get(name) for name in expected} == expected
    assert found["processes"] == "8"


def test_driver_version_is_read_from_nvml_if_the_kernel_hides_it(system, monkeypatch):
    class Library:
        def nvmlInit_v2(self):
            return 0

        def nvmlSystemGetDriverVersion(self, text, size):
            assert size == 80
            text.value = b"580.159.03"
            return 0

    monkeypatch.setattr(module.ctypes, "CDLL", {"libnvidia-ml.so.1": Library()}.__getitem__)
    assert module._driver() == "580.159.03"


def test_gpu_that_does_not_respond_is_omitted(tmp_path, monkeypatch):
    def no(_):
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(torch.cuda, "get_device_properties", no)
    monkeypatch.setattr(module, "_DRIVER", tmp_path / "none")
    monkeypatch.setattr(module, "_NVML", "libnone.so")
    found = describe_machine("cuda")
    assert "gpu" not in found
    assert "driver" not in found


def test_torch_is_not_imported_for_the_description():
    code = (
        "import sys; from ssondo.system.hardware import describe_machine; found = describe_machine(); "
        "assert 'torch' in found; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_description_names_neither_user_nor_host(monkeypatch):
    asked = []
    for owner, name in ((platform, "node"), (module.os, "getlogin"), (getpass, "getuser")):
        monkeypatch.setattr(owner, name, lambda *_, name=name: asked.append(name) or "somebody")
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setenv("HOSTNAME", "somebody")
    found = describe_machine()
    assert asked == []
    assert "somebody" not in str(found)
    assert set(found) <= {
        *("python", "machine", "processor", "cores", "memory", "device", "processes"),
        *("gpu", "gpu_memory", "driver", "cuda"),
        *module._PACKAGES,
    }


# The description changes nothing else.


def teacher_shard(audio, out):
    embed(audio=audio, out=out, teacher=TEACHER, device="cpu")


TEACHER = {"kind": "callable", "callable": "small_teachers:mean_and_power", "sample_rate": 32000, "embedding_dim": 2}


def test_embeddings_describe_their_machine_and_keep_their_digest(corpus, tmp_path, elsewhere):
    teacher_shard(corpus / "one.audio.h5", tmp_path / "here.h5")
    elsewhere()
    teacher_shard(corpus / "one.audio.h5", tmp_path / "there.h5")
    assert digest_path(tmp_path / "here.h5").read_text() == digest_path(tmp_path / "there.h5").read_text()
    with EmbeddingShard(tmp_path / "here.h5") as here, EmbeddingShard(tmp_path / "there.h5") as there:
        assert here.settings["environment_of"]["embed"]["processor"] == processor()
        assert there.settings["environment_of"] == {"embed": ELSEWHERE}
        without = [{k: v for k, v in shard.settings.items() if k != "environment_of"} for shard in (here, there)]
    assert without[0] == without[1]


@pytest.mark.usefixtures("one_thread")
def test_training_resumed_on_another_machine_is_the_same_training(corpus, tmp_path, monkeypatch, elsewhere, caplog):
    run("distill", **arguments(corpus, tmp_path / "whole"))
    broken = arguments(corpus, tmp_path / "broken", checkpoint_minutes=0)
    with monkeypatch.context() as patch, killed_at(patch, 3):
        run("distill", **broken)
    elsewhere()
    with caplog.at_level(logging.INFO):
        run("distill", **broken)
    assert "resuming at step 3" in caplog.text
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")
    made = [load_student(tmp_path / name / "student.ckpt").provenance["environment"] for name in ("whole", "broken")]
    assert made[0]["processor"] == processor()
    assert made[1] == ELSEWHERE


def task_shard(path):
    """Twelve tones of two pitches in three splits."""
    time = torch.arange(4096) / 32000
    with AudioShardWriter(
        path,
        sample_rate=32000,
        settings={"task": "tones", "metric": "accuracy", "classes": ["low", "high"], "split_kind": "split"},
    ) as shard:
        for i in range(12):
            tone = (0.1 + 0.3 * (i % 2)) * torch.sin(2000 * (1 + i % 2) * time + i)
            shard.add(f"clip{i}", encode_flac(tone.numpy(), 32000), duration_s=0.128)
        shard.add_extra("labels", torch.eye(2, dtype=torch.int8)[torch.arange(12) % 2].numpy())
        shard.add_extra("split", np.array([b"train"] * 6 + [b"valid"] * 2 + [b"test"] * 4))


@pytest.mark.usefixtures("one_thread")
def test_score_describes_the_machines_of_training_embedding_and_scoring(corpus, tmp_path, elsewhere):
    task_shard(tmp_path / "task.h5")
    run("distill", **arguments(corpus, tmp_path, epochs=1))
    digests = set()
    for machine in ("here", "there"):
        if machine == "there":
            elsewhere()
        out = tmp_path / f"{machine}.h5"
        embed_task(audio=tmp_path / "task.h5", out=out, student=tmp_path / "student.ckpt", device="cpu")
        digests.add(digest_path(out).read_text())
        probe(
            embeddings=out,
            out=tmp_path / f"{machine}.json",
            model=distilled(),
            head="linear",
            hidden=0,
            learning_rates=[0.01],
            weight_decays=[0.0],
            batch_sizes=[4],
            steps=10,
            patience=10,
            validate_every=5,
            protocol="standard",
            seeds=[0, 1],
            device="cpu",
        )
    assert len(digests) == 1
    here, there = (json.loads((tmp_path / f"{machine}.json").read_text()) for machine in ("here", "there"))
    assert here["environment_of"]["distill"]["processor"] == here["environment"]["processor"] == processor()
    assert set(there["environment_of"]) == {"distill", "embed_task"}
    assert there["environment"] == there["environment_of"]["embed_task"] == ELSEWHERE
    assert here["scores"] == there["scores"]


def test_tables_of_scores_from_two_machines_are_identical(tmp_path):
    made = []
    for machine in ({"processor": "A"}, ELSEWHERE):
        folder = tmp_path / "run"  # the same paths, because scores.csv contains them
        folder.mkdir(exist_ok=True)
        more = {"environment": machine, "environment_of": {"distill": machine, "embed_task": machine}}
        paths = [
            write_score(folder, model("teacher", "matpac"), "esc50", [0.9, 0.91], **more),
            write_score(folder, distilled(n_clusters=0), "esc50", [0.8, 0.82], **more),
        ]
        outputs = {name: folder / f"t1.{name}" for name in ("markdown", "csv", "latex", "figure", "svg")}
        outputs["figure"] = folder / "t1.png"
        table1(scores=paths, teachers=["matpac"], students=["dymn"], tasks=["esc50"], **outputs)
        second = {name: folder / f"t2.{name}" for name in ("markdown", "csv", "latex")}
        table2(scores=paths[1:], losses=["cosine"], music=["esc50"], environment=["esc50"], **second)
        scores(scores=paths, out=folder / "scores.csv")
        made.append({path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"})
    assert len(made[0]) == 9
    assert made[0] == made[1]
