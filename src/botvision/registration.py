"""Registers the models in timm at the moment somebody imports timm, and not before.

timm and torch take seconds to import. `import botvision` and the command's `--help` shall not pay for them.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MODELS_MODULE = "botvision.backbones.models"


class _TimmWatcher:
    """Finds timm as Python would, and has our table imported right after it.

    It stays in place until timm has really been imported: others only ask whether timm is there. It is no
    `importlib.abc.MetaPathFinder`: to import that one takes as long as all else of the command's `--help`.
    """

    _asking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "timm" or self._asking:
            return None
        self._asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking = False
        if spec is None or spec.loader is None:
            return spec
        loader, execute = spec.loader, spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            execute(module)
            importlib.import_module(MODELS_MODULE)

        loader.exec_module = exec_module
        return spec


def register_with_timm() -> None:
    """Make sure that timm knows the models, now or as soon as it is imported."""
    if "timm" in sys.modules:
        importlib.import_module(MODELS_MODULE)
    elif not any(isinstance(finder, _TimmWatcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TimmWatcher())
