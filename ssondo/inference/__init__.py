"""Use of trained students in other programs: the interface of the published package, and export to ONNX."""
