"""How fast teachers and students embed, and students train, and how near that is to the machine's limit.

    python benchmarks/models.py
    python benchmarks/models.py --models dymn --batch 16 --repeats 10
    python benchmarks/models.py --device cuda --batch 120 --teacher-batch 64

Random weights, clips of noise. Embedding begins with waveforms and ends with embeddings, as
`Student.embed` and a teacher's call do. A training step is log-mel, forward, cosine loss, backward,
clipping and Adam, on a student that is placed as `ssondo distill` places it. The limit is a square
matrix product of the same precision, timed in the same run; what counts against it are the
convolutions and matrix products of a clip, three times those for training (forward, and the
gradients of inputs and of weights). Times are the fastest of several repeats. Prints Markdown.
"""

import argparse
import copy
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssondo.distill.distributed import DistributedContext, use_deterministic_algorithms
from ssondo.distill.losses import Cosine
from ssondo.distill.prepare_model import prepare, to_device
from ssondo.errors import SsondoError
from ssondo.students import ARCHITECTURES
from ssondo.students.student import Student
from ssondo.system.allocator import disable_malloc_trim
from ssondo.system.device import PRECISIONS, amp_dtype
from ssondo.system.hardware import describe_machine
from ssondo.teachers.teacher import load_teacher
from ssondo.teachers.vit import M2DTeacher, Matpac

TEACHERS = ("matpac", "m2d", "yamnet")
TITLES = {
    "matpac": "MATPAC++",
    "m2d": "M2D",
    "yamnet": "YAMNet (8 bit, onnxruntime)",
    "mobilenetv3": "MobileNetV3",
    "dymn": "DyMN",
    "eres2net": "ERes2Net",
}


def fastest(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds of the fastest of `repeats` calls, after one that does not count."""
    seconds = []
    for _ in range(repeats + 1):
        _wait_for(device)
        began = time.perf_counter()
        run()
        _wait_for(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_limit(device: torch.device, half: torch.dtype | None, repeats: int) -> float:
    """FLOP a second of a large square matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=device, dtype=half or torch.float32)
    return 2 * size**3 / fastest(lambda: a @ b, max(repeats, 5), device)


def flop_of_a_clip(model: nn.Module, log_mel: Tensor, forward: Callable[[Any, Tensor], object]) -> float:
    """FLOP of the convolutions and matrix products from log-mels on, for each clip; nothing is computed."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(copy.deepcopy(model).to("meta"), log_mel.to("meta"))
    return counter.get_total_flops() / len(log_mel)


def noise(n_clips: int, seconds: float, sample_rate: int) -> Tensor:
    """Waveforms, shape (n_clips, samples)."""
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(n_clips, round(seconds * sample_rate), generator=generator)


class Bench:
    """Measures models and prints a row for each."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.half = amp_dtype(options.precision, self.device)
        self.limit = matmul_limit(self.device, self.half, options.repeats)

    def autocast(self) -> torch.autocast | nullcontext[None]:
        """The precision that is measured."""
        return nullcontext() if self.half is None else torch.autocast(self.device.type, dtype=self.half)

    def row(self, name: str, what: str, batch: int, run: Callable[[], object], flop: float | None) -> None:
        """Time `run`, which takes `batch` clips of `flop` each, and print it."""
        rate = batch / fastest(run, self.options.repeats, self.device)
        if flop is None:
            counted, share = "–", "–"
        else:
            counted, share = f"{flop / 1e9:.2f}", f"{100 * rate * flop / self.limit:.0f} %"
        print(f"| {TITLES[name]} | {what} | {batch} | {rate:.3g} | {counted} | {share} |", flush=True)

    def teacher(self, name: str) -> None:
        """Measure a teacher's embedding."""
        batch = self.options.teacher_batch
        flop = None
        teacher: Any
        if name == "yamnet":
            try:
                teacher = load_teacher(name)
            except SsondoError as error:
                print(f"| {TITLES[name]} | not measured: {error} | | | | |")
                return
            # Arithmetic in 8 bit has nothing to do with the limit of a product of floats.
        else:
            vit = (Matpac() if name == "matpac" else M2DTeacher()).eval().requires_grad_(False)
            clip = noise(1, self.options.seconds, vit.sample_rate)
            log_mel = vit.log_mel(vit.windows(clip).flatten(0, 1))
            flop = len(log_mel) * flop_of_a_clip(vit, log_mel, lambda model, x: model.encode_log_mel(x))
            teacher = vit.to(self.device)
        clips = noise(batch, self.options.seconds, teacher.sample_rate)

        def run() -> None:
            with torch.inference_mode(), self.autocast():
                teacher(clips)

        self.row(name, "embed", batch, run, flop)

    def student(self, name: str) -> None:
        """Measure a student's embedding and its training step."""
        batch = self.options.batch
        torch.manual_seed(0)
        student = Student(name, window_s=min(10.0, self.options.seconds)).eval()
        clips = noise(batch, self.options.seconds, student.sample_rate)
        log_mel = student.log_mel(clips[:1])
        embed_flop = flop_of_a_clip(student.model, log_mel, lambda model, x: model(x))
        train_flop = 3 * flop_of_a_clip(student, log_mel, lambda model, x: model(x))
        if student.model.prefers_channels_last:
            student.model.to(memory_format=torch.channels_last)  # as load_student does
        student, clips = student.to(self.device), clips.to(self.device)

        def embed() -> None:
            with self.autocast():
                student.embed(clips)

        self.row(name, "embed", batch, embed, embed_flop)
        trained = to_device(student, DistributedContext(self.device)).train()
        target = torch.randn(batch, trained.settings["n_outputs"], device=self.device)
        loss_function = Cosine()
        optimizer = torch.optim.Adam(trained.parameters(), lr=8e-4, fused=True)

        mapped = prepare(trained, DistributedContext(self.device), compile=self.options.compile)

        def train() -> None:
            log_mel = trained.log_mel(clips)
            with self.autocast():
                outputs = mapped(log_mel)
            loss_function(outputs.float(), target).backward()
            nn.utils.clip_grad_norm_(trained.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        self.row(name, "train", batch, train, train_flop)


def machine(device: torch.device) -> str:
    """What the numbers were measured on, in words."""
    found = describe_machine(str(device))
    vectors = torch.backends.cpu.get_cpu_capability()
    threads = f"{found['cores']} cores, {torch.get_num_threads()} threads"
    parts = [f"{found['processor']} ({vectors}), {threads}, torch {found['torch']}"]
    if "gpu" in found:
        parts.append(f"{found['gpu']}, CUDA {found['cuda']}")
    if hasattr(os, "getloadavg"):
        parts.append(f"load average {os.getloadavg()[0]:.1f} when it began")
    return "; ".join(parts)


def main() -> None:
    """Measure the chosen models and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", choices=[*TEACHERS, *ARCHITECTURES], metavar="MODEL", help="default: all"
    )
    parser.add_argument("--batch", type=int, default=8, help="clips at once through a student")
    parser.add_argument("--teacher-batch", type=int, default=2, help="clips at once through a teacher")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: torch's choice, OMP_NUM_THREADS or all cores")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--compile", action="store_true", help="train with torch.compile")
    parser.add_argument("--deterministic", action="store_true", help="as training jobs on a GPU are")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="auto: 16 bit on a GPU")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.deterministic:
        use_deterministic_algorithms()
    device = torch.device(options.device)
    if device.type == "cpu":
        disable_malloc_trim()  # as the commands do
    described = machine(device)
    bench = Bench(options)
    precision = "float32" if bench.half is None else str(bench.half).removeprefix("torch.")
    print(
        f"{described}. Clips of {options.seconds:g} s, {precision}, the fastest of {options.repeats} repeats. "
        f"Limit: {bench.limit / 1e9:,.0f} GFLOP/s in matrix products.\n"
    )
    print("| model | what | batch | clips/s | GFLOP a clip | share of the limit |")
    print("|---|---|--:|--:|--:|--:|")
    for name in options.models or [*TEACHERS, *ARCHITECTURES]:
        if name in TEACHERS:
            bench.teacher(name)
        else:
            bench.student(name)


if __name__ == "__main__":
    main()
