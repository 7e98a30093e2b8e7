"""Students: small networks that are trained to map audio to the embeddings of a teacher.

Build one with `ssondo.students.student.build_student`. To add an architecture, write a module in this package with a
subclass of `ssondo.students.backbone.Backbone` and name the class here.
"""

ARCHITECTURES = {
    "mobilenetv3": "ssondo.students.mobilenetv3:MobileNetV3",
    "dymn": "ssondo.students.dymn:DyMN",
    "eres2net": "ssondo.students.eres2net:ERes2Net",
}
