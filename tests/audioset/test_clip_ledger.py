import struct
from pathlib import Path

import pytest

from ssondo.audioset.clip_ledger import Ledger, read_ledger
from ssondo.audioset.sources import Fetched
from ssondo.errors import TransientError
from ssondo.storage.clip_location import LocationChanged, read_clip
from ssondo.storage.segments import Segment
from ssondo.storage.shards.status import Status

CLIPS = [Segment("a", 0, 1), Segment("b", 0.5, 1), Segment("-c", 0, 1)]
ENDINGS = [
    Fetched(Status.OK, "", b"sound of a"),
    Fetched(Status.UNAVAILABLE, "private"),
    Fetched(Status.OK, "", b"sound of c" * 30),
]


def written(path: Path) -> list[int]:
    """A ledger of the three clips; returns where each record ends."""
    ends = []
    with Ledger(path, "source") as ledger:
        for clip, ending in zip(CLIPS, ENDINGS, strict=True):
            ledger.add(clip, ending)
            ends.append(path.stat().st_size)
    return ends


def sound(ledger: Ledger, clip: Segment) -> bytes:
    origin = ledger.result(clip).location
    assert origin is not None
    return read_clip(origin, ledger.path.parent)


def test_clips_are_remembered_with_their_sound(tmp_path: Path) -> None:
    written(tmp_path / "x.ledger")
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert [ledger.finished(clip) for clip in CLIPS] == [True] * 3
        assert sound(ledger, CLIPS[0]) == b"sound of a"
        assert sound(ledger, CLIPS[2]) == b"sound of c" * 30
        assert ledger.result(CLIPS[1]) == Fetched(Status.UNAVAILABLE, "private")


def test_power_cut_at_any_byte_leaves_a_ledger_with_what_was_finished(tmp_path: Path) -> None:
    ends = written(tmp_path / "x.ledger")
    whole = (tmp_path / "x.ledger").read_bytes()
    torn = tmp_path / "torn.ledger"
    for cut in range(len(whole) + 1):
        torn.write_bytes(whole[:cut])
        with Ledger(torn, "source") as ledger:
            finished = [ledger.finished(clip) for clip in CLIPS]
            assert finished == [cut >= end for end in ends], cut
            ledger.add(Segment("later", 0, 1), Fetched(Status.OK, "", b"more"))
            assert all(sound(ledger, CLIPS[n]) == ENDINGS[n].data for n in (0, 2) if finished[n])
        with Ledger(torn, "source") as ledger:
            assert sound(ledger, Segment("later", 0, 1)) == b"more", cut


def test_a_last_record_whose_sound_never_reached_the_disk_is_dropped(tmp_path: Path) -> None:
    # A journal may bring the length of a file to the disk and leave zeros where the end should be.
    written(tmp_path / "x.ledger")
    whole = (tmp_path / "x.ledger").read_bytes()
    (tmp_path / "x.ledger").write_bytes(whole[:-50] + bytes(50))
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert [ledger.finished(clip) for clip in CLIPS] == [True, True, False]


def test_damage_in_the_middle_costs_the_clips_that_it_is_in_and_no_other(tmp_path: Path) -> None:
    ends = written(tmp_path / "x.ledger")
    data = bytearray((tmp_path / "x.ledger").read_bytes())
    data[ends[0] + 30] ^= 0xFF  # in the note of b
    (tmp_path / "x.ledger").write_bytes(data)
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert [ledger.finished(clip) for clip in CLIPS] == [True, False, True]
        assert sound(ledger, CLIPS[2]) == b"sound of c" * 30


def test_one_wrong_byte_costs_the_clip_that_it_is_in_and_no_other(tmp_path: Path) -> None:
    ends = written(tmp_path / "x.ledger")
    whole = (tmp_path / "x.ledger").read_bytes()
    damaged = tmp_path / "damaged.ledger"
    # Of the first record, which names the source only, and of the clips'.
    begins = [whole.index(b"CLP2", 1), *ends]
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 0xFF
        damaged.write_bytes(data)
        with Ledger(damaged, "source", check_sound=True) as ledger:
            lost = [n for n, clip in enumerate(CLIPS) if not ledger.finished(clip)]
            assert lost == [n for n in range(3) if begins[n] <= at < begins[n + 1]], at
            for n in lost:
                ledger.add(CLIPS[n], ENDINGS[n])
        with Ledger(damaged, "source", check_sound=True) as ledger:
            assert all(map(ledger.finished, CLIPS)), at
            assert all(sound(ledger, CLIPS[n]) == ENDINGS[n].data for n in (0, 2)), at


@pytest.mark.parametrize("length", [0, 5, 400, 450])
def test_a_wrong_length_of_sound_hides_no_other_clip(tmp_path: Path, length: int) -> None:
    written(tmp_path / "x.ledger")
    data = bytearray((tmp_path / "x.ledger").read_bytes())
    at = data.index(b"CLP2", 1)
    assert at + length < len(data)
    struct.pack_into("<Q", data, at + 16, length)  # of a's sound
    (tmp_path / "x.ledger").write_bytes(data)
    assert [ytid for ytid, *_ in read_ledger(tmp_path / "x.ledger")] == ["b", "-c"]
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert [ledger.finished(clip) for clip in CLIPS] == [False, True, True]
        assert sound(ledger, CLIPS[2]) == b"sound of c" * 30


def test_damaged_sound_is_seen_when_it_is_read(tmp_path: Path) -> None:
    ends = written(tmp_path / "x.ledger")
    data = bytearray((tmp_path / "x.ledger").read_bytes())
    data[ends[0] - 3] ^= 0xFF
    (tmp_path / "x.ledger").write_bytes(data)
    with Ledger(tmp_path / "x.ledger", "source") as ledger, pytest.raises(LocationChanged, match="damaged"):
        sound(ledger, CLIPS[0])


def test_the_last_ending_of_a_clip_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        ledger.add(CLIPS[0], Fetched(Status.FAILED, "timeout"))
        assert not ledger.finished(CLIPS[0])
        ledger.add(CLIPS[0], Fetched(Status.OK, "", b"sound"))
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert ledger.finished(CLIPS[0])
        assert sound(ledger, CLIPS[0]) == b"sound"


def test_other_times_of_a_video_are_another_clip(tmp_path: Path) -> None:
    written(tmp_path / "x.ledger")
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert not ledger.finished(Segment("a", 5, 6))


def test_clips_of_another_source_are_not_used_and_not_lost(tmp_path: Path) -> None:
    written(tmp_path / "x.ledger")
    with Ledger(tmp_path / "x.ledger", "another") as ledger:
        assert not ledger.finished(CLIPS[0])
        ledger.add(CLIPS[0], Fetched(Status.OK, "", b"other sound"))
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert sound(ledger, CLIPS[0]) == b"sound of a"


def test_one_reason_is_opened_again_and_nothing_else(tmp_path: Path) -> None:
    written(tmp_path / "x.ledger")
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        ledger.add(Segment("d", 0, 1), Fetched(Status.UNAVAILABLE, "removed"))
        assert ledger.reset(["private"]) == 1
        assert ledger.reset(["private"]) == 1
        assert ledger.reset(["no such reason"]) == 0
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert [ledger.finished(clip) for clip in CLIPS] == [True, False, True]
        assert ledger.finished(Segment("d", 0, 1))
        ledger.add(CLIPS[1], Fetched(Status.UNAVAILABLE, "private"))
        assert ledger.finished(CLIPS[1])


def test_a_ledger_is_written_by_one_process_and_read_by_any(tmp_path: Path) -> None:
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        ledger.add(CLIPS[1], ENDINGS[1])
        with pytest.raises(TransientError, match="another process is fetching"):
            Ledger(tmp_path / "x.ledger", "source")
        entries = read_ledger(tmp_path / "x.ledger")
    assert [(key, entry.status, entry.reason) for key, entry in entries.items()] == [
        (("b", 0.5, 1), Status.UNAVAILABLE, "private")
    ]
