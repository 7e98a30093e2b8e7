"""Downstream tasks: from a data set's own layout to one task shard.

A task shard is an audio shard (32 kHz mono FLAC, each clip in its whole length) with `labels`
(1 present, 0 absent, -1 unknown) and `split` or `fold`. To add a data set, write one file with
a function `load(...) -> Task` and name it in `READERS`; docs/extend.md shows it.
"""

import inspect
import logging
import time
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any

import numpy as np

from ssondo.audio import decode_file, encode_flac, resample_to, to_mono
from ssondo.errors import SsondoError
from ssondo.pool import ordered_map
from ssondo.progress import progress
from ssondo.shards.audio import AudioShardWriter
from ssondo.shards.status import Status
from ssondo.tasks.archives import TarMember, ZipMember, read_tar
from ssondo.tasks.files import is_there, names_in
from ssondo.tasks.task import Clip, Playable, Remote, Task

log = logging.getLogger(__name__)

SAMPLE_RATE = 32000
MAX_MISSING = 0.02  # share of a task's clips
_SHOWN_FAULTS = 10
_NO_FILE = "no such file"

READERS = {
    "esc50": "ssondo.tasks.esc50:load",
    "fsd50k": "ssondo.tasks.fsd50k:load",
    "gtzan": "ssondo.tasks.gtzan:load",
    "magnatagatune": "ssondo.tasks.magnatagatune:load",
    "nsynth": "ssondo.tasks.nsynth:load",
    "openmic": "ssondo.tasks.openmic:load",
    "urbansound8k": "ssondo.tasks.urbansound8k:load",
    "table": "ssondo.tasks.table:load",
    "pattern": "ssondo.tasks.pattern:load",
    "rendered": "ssondo.tasks.rendered:load",
}
"""Kind of a task -> the function that reads its lists, imported when it is asked for."""


@dataclass(frozen=True)
class _Sound:
    """A clip ready for the shard, or why it is not."""

    blob: bytes = b""
    status: Status = Status.OK
    reason: str = ""
    duration_s: float = float("nan")


def _encoded(waveform: np.ndarray, sample_rate: int, reason: str = "") -> _Sound:
    blob = encode_flac(resample_to(waveform, sample_rate, SAMPLE_RATE), SAMPLE_RATE)
    return _Sound(blob, reason=reason, duration_s=len(waveform) / sample_rate)


def _read_sound(source: Path | ZipMember | bytes | Playable) -> _Sound:
    """Decode, mix down, resample and encode one clip; a fault of its file is a reason, not an exception."""
    if not isinstance(source, Path | ZipMember | bytes):
        return _encoded(*source.play())
    try:
        decoded = decode_file(source if isinstance(source, bytes) else source.read_bytes())
    except FileNotFoundError:
        return _Sound(status=Status.UNAVAILABLE, reason=_NO_FILE)
    except OSError as error:
        return _Sound(status=Status.FAILED, reason=f"cannot be read: {error.strerror}")
    except SsondoError as error:
        return _Sound(status=Status.UNAVAILABLE, reason=str(error))
    reason = f"cut short: {decoded.duration_s:.2f} s can be read" if decoded.truncated else ""
    return _encoded(to_mono(decoded.waveform), decoded.sample_rate, reason)


def _module(kind: str, task: str) -> ModuleType:
    if kind not in READERS:
        raise SsondoError(f"tasks.{task}.kind = {kind!r}: unknown; one of {', '.join(READERS)}")
    return import_module(READERS[kind].split(":")[0])


def _options(spec: dict[str, Any]) -> dict[str, Any]:
    """What a spec says besides its kind and path; on a command line it may stand without `options`."""
    beside = {name: value for name, value in spec.items() if name not in ("kind", "path", "options")}
    return {**beside, **(spec.get("options") or {})}


def remotes(kind: str) -> tuple[dict[str, Remote], str]:
    """The files to download for a kind of task, by name, and their licence; none for a user's own."""
    module = _module(kind, kind)
    return getattr(module, "REMOTES", {}), getattr(module, "LICENCE", "")


def _where_from(module: ModuleType) -> str:
    """What to download, for a task whose data is not here."""
    urls = [remote.url for remote in getattr(module, "REMOTES", {}).values()]
    if not urls:
        return "set it to your data"
    more = f" (and {len(urls) - 1} more)" if len(urls) > 1 else ""
    return f"download {urls[0]}{more} (licence: {module.LICENCE}) and set the key to its folder"


def _alternatives(hint: Any) -> list[Any]:
    """The types and literal values that a type hint allows."""
    if typing.get_origin(hint) in (typing.Union, UnionType):
        return [one for part in typing.get_args(hint) for one in _alternatives(part)]
    return list(typing.get_args(hint)) if typing.get_origin(hint) is typing.Literal else [hint]


def _fits(value: Any, allowed: Any) -> bool:
    if not isinstance(allowed, type):
        return bool(value == allowed)
    if isinstance(value, bool):
        return allowed is bool
    return isinstance(value, int | float if allowed is float else allowed)


def _check_types(task: str, load: Callable[..., Task], options: Mapping[str, Any]) -> None:
    """Refuse an option's value that is not what the reader takes."""
    hints = typing.get_type_hints(load)
    for name, value in options.items():
        allowed = _alternatives(hints[name])
        if not any(_fits(value, one) for one in allowed):
            words = ["null" if one is NoneType else getattr(one, "__name__", repr(one)) for one in allowed]
            should = " or ".join(words)
            raise SsondoError(f"tasks.{task}.options.{name} = {value!r}: is not allowed; it should be {should}")


def load_task(task: str, spec: dict[str, Any], seed: int) -> Task:
    """Read a task's lists, without its sound.

    Args:
        task: its name in the config.
        spec: `kind`, `path`, and the reader's `options`.
        seed: for tasks that are rendered, or whose folds are drawn.

    Raises:
        SsondoError: if the kind or an option is unknown, the data is not there, or its lists cannot be used.
    """
    names_in.cache_clear()
    module = _module(str(spec.get("kind")), task)
    load: Callable[..., Task] = getattr(module, READERS[spec["kind"]].split(":")[1])
    options = _options(spec)
    _max_missing(task, spec)
    options.pop("max_missing", None)
    known = list(inspect.signature(load).parameters)
    allowed = [name for name in known if name not in ("path", "task", "seed")]
    if unknown := sorted(set(options) - set(allowed)):
        may = f"{spec['kind']} has {', '.join([*allowed, 'max_missing'])}"
        raise SsondoError(f"tasks.{task}.options.{unknown[0]}: unknown option; {may}")
    _check_types(task, load, options)
    required = [name for name, p in inspect.signature(load).parameters.items() if p.default is inspect.Parameter.empty]
    if absent := [name for name in required if name in allowed and name not in options]:
        raise SsondoError(f"tasks.{task}.options.{absent[0]}: missing; the kind {spec['kind']} needs it")
    if "path" in known:
        if not spec.get("path"):
            raise SsondoError(f"tasks.{task}.path is not set: {_where_from(module)}")
        options["path"] = Path(spec["path"]).expanduser()
    given = {"task": task, "seed": seed}
    content = load(**options, **{name: value for name, value in given.items() if name in known})
    content.check(task)
    return content


def _max_missing(task: str, spec: dict[str, Any]) -> float:
    value = _options(spec).get("max_missing", MAX_MISSING)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SsondoError(f"tasks.{task}.options.max_missing = {value!r}: must be a number from 0 to 1")
    return float(value)


def _refuse_if_missing(task: str, faults: dict[str, str], clips: Sequence[Clip], max_missing: float) -> None:
    n_clips = len(clips)
    if len(faults) <= max_missing * n_clips:
        return
    counts = ", ".join(f"{n} {reason}" for reason, n in Counter(faults.values()).most_common(3))
    first = ", ".join(list(faults)[:3]) + _looked_for(faults, clips)
    raise SsondoError(
        f"task {task}: {len(faults)} of {n_clips} clips cannot be used ({counts}), first {first}; "
        f"complete tasks.{task}.path, or allow a larger share of them with "
        f"tasks.{task}.options.max_missing (now {max_missing:g})"
    )


def _looked_for(faults: dict[str, str], clips: Sequence[Clip]) -> str:
    first = next(clip for clip in clips if clip.clip_id in faults)
    return f" (looked for {first.source})" if faults[first.clip_id] == _NO_FILE else ""


def _in_order_of_reading(clips: Sequence[Clip]) -> list[Clip]:
    """Clips as listed, but those in tar archives at the end and as they stand there: these are read but once."""
    packed = [clip for clip in clips if isinstance(clip.source, TarMember)]
    return [clip for clip in clips if not isinstance(clip.source, TarMember)] + sorted(packed, key=_place)


def _place(clip: Clip) -> tuple[Path, int]:
    assert isinstance(clip.source, TarMember)
    return clip.source.archive, clip.source.position


def _sources(clips: Sequence[Clip]) -> Iterator[Path | ZipMember | bytes | Playable]:
    """What to read each clip from; of tar archives, their content."""
    packed = []
    for clip in clips:
        if isinstance(clip.source, TarMember):
            packed.append(clip.source)
        else:
            yield clip.source
    for archive, members in groupby(packed, key=lambda member: member.archive):
        yield from read_tar(archive, [member.position for member in members])


def _named(faults: dict[str, str]) -> str:
    """Clips and what is wrong with them, the first few."""
    shown = ", ".join(f"{clip_id} ({reason})" for clip_id, reason in list(faults.items())[:_SHOWN_FAULTS])
    more = len(faults) - _SHOWN_FAULTS
    return shown + (f" and {more:,} more, all of them with their reason in the shard" if more > 0 else "")


def prepare_task(*, task: str, spec: dict[str, Any], out: Path, seed: int, n_workers: int = 1) -> None:
    """Prepare a downstream task: one shard with the sound, labels and splits of its clips.

    A clip that is missing or damaged is kept with its reason and without sound; too many of them are an error.

    Args:
        task: the task's name in the config.
        spec: kind, path and options of the task.
        out: the task shard, written here.
        seed: for tasks that are rendered, or whose folds are drawn.
        n_workers: processes that decode.
    """
    started = time.perf_counter()
    content = load_task(task, spec, seed)
    max_missing = _max_missing(task, spec)
    clips, faults = _in_order_of_reading(content.clips), {}
    absent = [c.clip_id for c in clips if isinstance(c.source, Path) and not is_there(c.source)]
    _refuse_if_missing(task, {c: _NO_FILE for c in absent if c not in content.known_faults}, clips, max_missing)
    if content.official is not None:
        odd = content.official.deviations(len(content.classes), [clip.part for clip in clips])
        if odd:
            log.warning("task %s: not the official data set: %s; do not compare its scores", task, ", ".join(odd))
    settings = {
        "task": task,
        "metric": content.metric,
        "classes": list(content.classes),
        "split_kind": content.split_kind,
    }
    with ExitStack() as stack:
        shard = stack.enter_context(
            AudioShardWriter(out, sample_rate=SAMPLE_RATE, settings=settings, producer="prepare_task")
        )
        sounds = progress(ordered_map(_read_sound, _sources(clips), n_workers), f"prepare {task}", total=len(clips))
        for clip, sound in zip(clips, sounds, strict=True):
            shard.add(clip.clip_id, sound.blob, status=sound.status, reason=sound.reason, duration_s=sound.duration_s)
            if sound.status is not Status.OK:
                faults[clip.clip_id] = sound.reason
        counted = {clip_id: reason for clip_id, reason in faults.items() if clip_id not in content.known_faults}
        _refuse_if_missing(task, counted, clips, max_missing)
        shard.add_extra("labels", np.stack([clip.labels for clip in clips]).astype(np.int8))
        parts = np.array([clip.part for clip in clips])
        if content.split_kind == "split":
            shard.add_extra("split", parts.astype("S5"))
        else:
            shard.add_extra("fold", parts.astype(np.int16))
    if faults:
        log.info("task %s: not usable: %s", task, _named(faults))
    used = Counter(clip.part for clip in clips if clip.clip_id not in faults)
    shares = ", ".join(f"{n} {part}" if content.split_kind == "split" else f"{n}" for part, n in sorted(used.items()))
    log.info(
        "prepared task %s: %d clips in %d classes (%s%s), %d not usable, in %.0f s: %s",
        *(task, len(clips) - len(faults), len(content.classes)),
        *("" if content.split_kind == "split" else f"{len(used)} folds of ", shares),
        *(len(faults), time.perf_counter() - started, out),
    )
