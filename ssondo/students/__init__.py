"""Student architectures by name; each stands in its own module and is imported when it is built."""

import inspect
from importlib import import_module
from typing import Any

from ssondo.errors import SsondoError
from ssondo.students.backbone import Backbone

# A registry of names, not of modules: the code hash of one student must not cover the others.
ARCHITECTURES = {
    "mobilenetv3": "ssondo.students.mobilenetv3:MobileNetV3",
    "dymn": "ssondo.students.dymn:DyMN",
    "eres2net": "ssondo.students.eres2net:ERes2Net",
}


def architecture(name: str) -> type[Backbone]:
    """The class of an architecture.

    Args:
        name: a key of `ARCHITECTURES`, or "module:Class" of your own subclass of `Backbone`.

    Raises:
        SsondoError: if there is no such architecture, or it is none.
    """
    target = ARCHITECTURES.get(name, name)
    module, separator, attribute = target.partition(":")
    if not separator:
        raise SsondoError(
            f"student {name!r} is not known; there are {', '.join(ARCHITECTURES)}, or 'module:Class' of your own"
        )
    try:
        found = getattr(import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise SsondoError(f"student {name!r} cannot be imported ({error}); check the module and the class") from error
    if not (isinstance(found, type) and issubclass(found, Backbone)):
        raise SsondoError(f"student {name!r} is not a subclass of ssondo.students.Backbone")
    return found


def build(name: str, **settings: Any) -> Backbone:
    """Build a student backbone with random weights.

    Args:
        name: see `architecture`.
        settings: of the architecture, e.g. width_mult=0.4 or m_channels=16.

    Raises:
        SsondoError: if the architecture or one of the settings is not known, or one is of another type.
    """
    built = architecture(name)
    known = [key for key in inspect.signature(built).parameters if key != "self"]
    for key in settings:
        if key not in known:
            raise SsondoError(f"student {name!r} has no setting {key!r}; it has {', '.join(known)}")
    try:
        return built(**settings)
    except TypeError as error:
        raise SsondoError(f"student {name!r} cannot be built with {settings}: {error}") from error
