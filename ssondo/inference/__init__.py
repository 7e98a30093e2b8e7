"""Trained students for other programs: the interface of the published package, and export to ONNX."""
