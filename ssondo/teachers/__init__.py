"""Teachers: large pretrained models that map waveforms to embeddings.

Load one with `ssondo.load_teacher`. To add a kind of teacher, write a module in this package and name its loader here.
"""

# A loader is called as loader(checkpoint: Path | None, device: str, **options) and returns a
# `ssondo.teachers.teacher.Teacher`.
TEACHERS = {
    "matpac": "ssondo.teachers.vit:load_matpac",
    "m2d": "ssondo.teachers.vit:load_m2d",
    "yamnet": "ssondo.teachers.yamnet:load_yamnet",
    "onnx": "ssondo.teachers.external:load_onnx",
    "torchscript": "ssondo.teachers.external:load_torchscript",
    "callable": "ssondo.teachers.external:load_callable",
}
