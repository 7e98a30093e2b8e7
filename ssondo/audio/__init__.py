"""Sound: decoding, encoding, resampling, and log-mel spectrograms.

`decoding` decodes any audio or video file and `excerpt` a part of a long one, both with the libraries in
`decoders`; `codec` encodes and decodes the clips of shards; `waveform` resamples and fits to a length;
`log_mel` computes spectrograms with the constants in `log_mel_settings`, and `spec_augment` masks them.
"""
