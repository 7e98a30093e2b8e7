import torch

from ssondo.audio.spec_augment import SpecAugment


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def augment(**arguments: float) -> SpecAugment:
    return SpecAugment(**arguments).train()


def test_masks_of_parts_of_a_batch_equal_those_of_the_whole_batch() -> None:
    log_mel = torch.randn(6, 2, 16, 20, generator=torch.Generator().manual_seed(1))
    layer = augment(max_time_width=8, max_frequency_width=8)
    whole = layer(log_mel, torch.Generator().manual_seed(5))
    parts = [
        layer(part, torch.Generator().manual_seed(5), part=number, n_parts=3)
        for number, part in enumerate(log_mel.chunk(3))
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, log_mel)


def test_spec_augment_does_nothing_in_evaluation_mode():
    log_mel = noise(2, 128, 79)
    assert torch.equal(SpecAugment(2, 40, 2, 40).eval()(log_mel), log_mel)


def test_spec_augment_of_width_zero_does_nothing():
    log_mel = noise(2, 128, 79)
    assert torch.equal(augment(max_time_width=0, max_frequency_width=0)(log_mel), log_mel)


def test_spec_augment_masks_one_band_of_frames_and_one_of_mels_up_to_their_maximal_width():
    log_mel = torch.ones(500, 128, 79)
    masked = augment(max_time_width=20, max_frequency_width=30, fill=0.0)(log_mel) == 0
    frames, mels = masked.all(1), masked.all(2)
    assert torch.equal(masked, frames[:, None, :] | mels[:, :, None])
    for bands, widest in ((frames, 20), (mels, 30)):
        edges = torch.diff(bands.int(), dim=1).abs().sum(1)
        assert edges.max() <= 2
        widths = bands.sum(1)
        assert (widths.min(), widths.max()) == (0, widest)
        assert abs(widths.float().mean() - widest / 2) < 1.5
        assert bands.any(0).all()


def test_spec_augment_gives_each_clip_its_own_masks_and_all_its_windows_the_same():
    masked = augment(max_time_width=40, max_frequency_width=0, fill=0.0)(torch.ones(8, 3, 128, 79)) == 0
    assert torch.equal(masked[:, 0], masked[:, 2])
    assert len({tuple(clip[0, 0].tolist()) for clip in masked}) > 4


def test_spec_augment_fills_with_the_mean_of_the_clip_and_does_not_change_its_input():
    log_mel = noise(4, 128, 79) + torch.arange(4.0)[:, None, None]
    before = log_mel.clone()
    augmented = augment(max_time_width=79, max_frequency_width=0)(log_mel, torch.Generator().manual_seed(1))
    assert torch.equal(log_mel, before)
    changed = augmented != log_mel
    assert changed.any(dim=(1, 2)).all()
    means = log_mel.mean(dim=(1, 2))[:, None, None].expand_as(log_mel)
    torch.testing.assert_close(augmented[changed], means[changed])


def test_spec_augment_is_reproducible_with_a_generator():
    log_mel, module = noise(4, 128, 79), augment(max_time_width=40, max_frequency_width=40)
    first, again, other = (module(log_mel, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
