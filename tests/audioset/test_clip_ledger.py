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
RESULTS = [
    Fetched(Status.OK, "", b"sound of a"),
    Fetched(Status.UNAVAILABLE, "private"),
    Fetched(Status.OK, "", b"sound of c" * 30),
]


def write_ledger(path: Path) -> list[int]:
    """Write a ledger of the three clips and return the offset of the end of each record."""
    ends = []
    with Ledger(path, "source") as ledger:
        for clip, result in zip(CLIPS, RESULTS, strict=True):
            ledger.add(clip, result)
            ends.append(path.stat().st_size)
    return ends


def sound(ledger: Ledger, clip: Segment) -> bytes:
    location = ledger.result(clip).location
    assert location is not None
    return read_clip(location, ledger.path.parent)


def test_ledger_returns_the_stored_results_and_audio(tmp_path: Path) -> None:
    write_ledger(tmp_path / "x.ledger")
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert [ledger.finished(clip) for clip in CLIPS] == [True] * 3
        assert sound(ledger, CLIPS[0]) == b"sound of a"
        assert sound(ledger, CLIPS[2]) == b"sound of c" * 30
        assert ledger.result(CLIPS[1]) == Fetched(Status.UNAVAILABLE, "private")


def test_ledger_truncated_at_any_byte_keeps_all_finished_clips(tmp_path: Path) -> None:
    ends = write_ledger(tmp_path / "x.ledger")
    whole = (tmp_path / "x.ledger").read_bytes()
    torn = tmp_path / "torn.ledger"
    for cut in range(len(whole) + 1):
        torn.write_bytes(whole[:cut])
        with Ledger(torn, "source") as ledger:
            finished = [ledger.finished(clip) for clip in CLIPS]
            assert finished == [cut >= end for end in ends], cut
            ledger.add(Segment("later", 0, 1), Fetched(Status.OK, "", b"more"))
            assert all(sound(ledger, CLIPS[n]) == RESULTS[n].data for n in (0, 2) if finished[n])
        with Ledger(torn, "source") as ledger:
            assert sound(ledger, Segment("later", 0, 1)) == b"more", cut


def test_last_record_with_zeros_in_place_of_audio_is_dropped(tmp_path: Path) -> None:
    # After a power failure, a journalling file system may keep the new length of a file but not its last bytes.
    write_ledger(tmp_path / "x.ledger")
    whole = (tmp_path / "x.ledger").read_bytes()
    (tmp_path / "x.ledger").write_bytes(whole[:-50] + bytes(50))
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert [ledger.finished(clip) for clip in CLIPS] == [True, True, False]


def test_damaged_record_loses_only_its_own_clip(tmp_path: Path) -> None:
    ends = write_ledger(tmp_path / "x.ledger")
    data = bytearray((tmp_path / "x.ledger").read_bytes())
    data[ends[0] + 30] ^= 0xFF  # in the record of b
    (tmp_path / "x.ledger").write_bytes(data)
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert [ledger.finished(clip) for clip in CLIPS] == [True, False, True]
        assert sound(ledger, CLIPS[2]) == b"sound of c" * 30


def test_any_single_wrong_byte_loses_at_most_the_clip_of_its_record(tmp_path: Path) -> None:
    ends = write_ledger(tmp_path / "x.ledger")
    whole = (tmp_path / "x.ledger").read_bytes()
    damaged = tmp_path / "damaged.ledger"
    # The first record contains only the name of the source; the clips follow.
    begins = [whole.index(b"CLP2", 1), *ends]
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 0xFF
        damaged.write_bytes(data)
        with Ledger(damaged, "source", check_sound=True) as ledger:
            lost = [n for n, clip in enumerate(CLIPS) if not ledger.finished(clip)]
            assert lost == [n for n in range(3) if begins[n] <= at < begins[n + 1]], at
            for n in lost:
                ledger.add(CLIPS[n], RESULTS[n])
        with Ledger(damaged, "source", check_sound=True) as ledger:
            assert all(map(ledger.finished, CLIPS)), at
            assert all(sound(ledger, CLIPS[n]) == RESULTS[n].data for n in (0, 2)), at


@pytest.mark.parametrize("length", [0, 5, 400, 450])
def test_wrong_audio_length_in_a_record_hides_no_other_clip(tmp_path: Path, length: int) -> None:
    write_ledger(tmp_path / "x.ledger")
    data = bytearray((tmp_path / "x.ledger").read_bytes())
    at = data.index(b"CLP2", 1)
    assert at + length < len(data)
    struct.pack_into("<Q", data, at + 16, length)  # length of the audio of clip a
    (tmp_path / "x.ledger").write_bytes(data)
    assert [ytid for ytid, *_ in read_ledger(tmp_path / "x.ledger")] == ["b", "-c"]
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert [ledger.finished(clip) for clip in CLIPS] == [False, True, True]
        assert sound(ledger, CLIPS[2]) == b"sound of c" * 30


def test_damaged_audio_is_detected_when_it_is_read(tmp_path: Path) -> None:
    ends = write_ledger(tmp_path / "x.ledger")
    data = bytearray((tmp_path / "x.ledger").read_bytes())
    data[ends[0] - 3] ^= 0xFF
    (tmp_path / "x.ledger").write_bytes(data)
    with Ledger(tmp_path / "x.ledger", "source") as ledger, pytest.raises(LocationChanged, match="damaged"):
        sound(ledger, CLIPS[0])


def test_latest_result_of_a_clip_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        ledger.add(CLIPS[0], Fetched(Status.FAILED, "timeout"))
        assert not ledger.finished(CLIPS[0])
        ledger.add(CLIPS[0], Fetched(Status.OK, "", b"sound"))
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert ledger.finished(CLIPS[0])
        assert sound(ledger, CLIPS[0]) == b"sound"


def test_segment_with_other_times_is_another_clip(tmp_path: Path) -> None:
    write_ledger(tmp_path / "x.ledger")
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert not ledger.finished(Segment("a", 5, 6))


def test_clips_of_another_source_are_ignored_but_kept(tmp_path: Path) -> None:
    write_ledger(tmp_path / "x.ledger")
    with Ledger(tmp_path / "x.ledger", "another") as ledger:
        assert not ledger.finished(CLIPS[0])
        ledger.add(CLIPS[0], Fetched(Status.OK, "", b"other sound"))
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        assert sound(ledger, CLIPS[0]) == b"sound of a"


def test_reset_reopens_only_the_clips_with_the_given_reason(tmp_path: Path) -> None:
    write_ledger(tmp_path / "x.ledger")
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


def test_ledger_has_one_writer_and_any_number_of_readers(tmp_path: Path) -> None:
    with Ledger(tmp_path / "x.ledger", "source") as ledger:
        ledger.add(CLIPS[1], RESULTS[1])
        with pytest.raises(TransientError, match="another process is fetching"):
            Ledger(tmp_path / "x.ledger", "source")
        entries = read_ledger(tmp_path / "x.ledger")
    assert [(key, entry.status, entry.reason) for key, entry in entries.items()] == [
        (("b", 0.5, 1), Status.UNAVAILABLE, "private")
    ]
