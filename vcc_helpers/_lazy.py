"""Names that are loaded when they are first touched (PEP 562).

Needs no sibling module.
"""

from collections.abc import Callable, Mapping
from importlib import import_module


def attach(
    package: str, modules: tuple[str, ...], names: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a package, of which `package` is the ``__name__``.

    Its attributes are `modules`, and by module the `names` of functions and classes; what is in
    both is taken for the latter.
    """
    home = {name: module for module, found in names.items() for name in found}

    def find(name: str) -> object:
        if name in home:
            return getattr(import_module(f"{package}.{home[name]}"), name)
        if name in modules:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find, lambda: sorted({*modules, *home})
