"""Sound: decoding and encoding (`codec`), parts of long recordings (`excerpt`) and log-mel spectrograms (`log_mel`)."""
