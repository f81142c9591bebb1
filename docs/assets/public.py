"""An extension of Griffe: a class is shown where it is defined, and not again in a package that lists it."""

from typing import Any

import griffe


class WhereDefined(griffe.Extension):
    """Take what packages import from their modules out of the reference."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called when all of a package is read."""
        for module in filter(lambda module: module.is_init_module, (pkg, *modules(pkg))):
            for name in [name for name, member in module.members.items() if member.is_alias]:
                del module.members[name]


def modules(package: griffe.Module) -> list[griffe.Module]:
    """All modules below."""
    found = list(package.modules.values())
    return [*found, *(below for module in found for below in modules(module))]
