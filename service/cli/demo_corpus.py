"""The demo corpus: the documentation strings of the standard library of the running Python.

Document ids are public dotted names (`asyncio.wait_for`, `list.sort`); the shortest one if an object has several.
"""

import contextlib
import importlib
import inspect
import io
import os.path
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from service.core.documents import Document
from service.core.ids import DocumentId

COLLECTION = "python-docs"

# Importing these opens windows or browsers, prints, or needs a display; or they are tests and tools, no library.
_SKIPPED = {"antigravity", "this", "idlelib", "lib2to3", "test", "turtle", "turtledemo", "tkinter", "ensurepip", "pip"}
_SYSTEM_TWINS = {"posix", "posixpath", "nt", "ntpath", "sre_compile", "sre_constants", "sre_parse"}
_SHORTEST_TEXT = 20


def documents() -> list[Document]:
    """Modules, classes, functions and methods, each with its signature, documentation and origin."""
    named: dict[int, tuple[str, ModuleType, Any]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # inspecting deprecated names warns
        for public_name, module in _modules():
            for name, value in _public(public_name, module):
                known = named.get(id(value))
                if known is None or (name.count("."), len(name), name) < (known[0].count("."), len(known[0]), known[0]):
                    named[id(value)] = (name, module, value)
        found: dict[str, Document] = {}
        for name, module, value in sorted(named.values(), key=lambda one: one[0]):
            text = inspect.getdoc(value) or ""
            if len(text) >= _SHORTEST_TEXT:
                found.setdefault(name, _document(name, module, value, text))
    return list(found.values())


def _document(name: str, module: ModuleType, value: Any, text: str) -> Document:
    short = name.rsplit(".", 1)[-1]
    signature = _signature(value)
    heading = f"{short}{signature}\n\n" if signature and not text.startswith(f"{short}(") else ""
    return Document(
        id=DocumentId(name),
        title=name,
        text=heading + text,
        metadata={
            "module": module.__name__,
            "package": module.__name__.split(".", 1)[0],
            "kind": _kind(value),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        },
    )


def _modules() -> Iterator[tuple[str, ModuleType]]:
    """Every importable public module of the standard library by its public name, submodules of packages included."""
    for name in sorted(sys.stdlib_module_names - _SKIPPED - _SYSTEM_TWINS):
        module = None if name.startswith("_") else _import(name)
        if module is None:
            continue
        yield name, module
        for inner in pkgutil.iter_modules(getattr(module, "__path__", []), f"{name}."):
            last = inner.name.rsplit(".", 1)[-1]
            submodule = None if last.startswith("_") or last in {"test", "tests", "idle_test"} else _import(inner.name)
            if submodule is not None:
                yield inner.name, submodule
    yield "os.path", os.path


def _import(name: str) -> ModuleType | None:
    """The module, or None: some belong to other systems, some need what is not installed."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit):
            return None


def _public(public_name: str, module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The module itself, the names that it defines or declares public, and the public methods of its classes."""
    prefix = "" if public_name == "builtins" else f"{public_name}."
    declared = set(getattr(module, "__all__", ()))
    yield public_name, module
    for name, value in list(vars(module).items()):
        if name.startswith("_") or inspect.ismodule(value) or not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        home = getattr(value, "__module__", None)
        if name not in declared and home != module.__name__ and prefix:
            continue
        yield f"{prefix}{name}", value
        if inspect.isclass(value):
            for method, function in list(vars(value).items()):
                function = getattr(function, "__func__", function)
                if not method.startswith("_") and (inspect.isroutine(function) or isinstance(function, property)):
                    yield f"{prefix}{name}.{method}", function


def _signature(value: Any) -> str:
    try:
        signature = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    return "" if " at 0x" in signature else signature  # a memory address differs in every run


def _kind(value: Any) -> str:
    if inspect.ismodule(value):
        return "module"
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    if isinstance(value, property):
        return "property"
    return "method" if "." in getattr(value, "__qualname__", "") else "function"
