"""Every public name resolves, is listed, and documents what it takes and gives."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, get_origin

import pytest

from reki_feast import Project
from reki_feast.declare.base import Declared

MODULES = (
    "reki_feast",
    "reki_feast.results",
    "reki_feast.stores",
    "reki_feast.stores.serving",
    "reki_feast.stores.training",
    "reki_feast.views",
    "reki_feast.clustering",
    "reki_feast.models.hein",
)
NAMES = [(module, name) for module in MODULES for name in import_module(module).__all__]
METHODS = [name for name, _ in inspect.getmembers(Project, callable) if not name.startswith("_")]


def lacking(documented: Any) -> list[str]:
    """Sections, or descriptions of fields, that a name should have and does not."""
    if get_origin(documented):  # an alias of types
        return []
    text = inspect.getdoc(documented) or ""
    if not text:
        return ["a docstring"]
    if inspect.isclass(documented) and issubclass(documented, Declared):
        return [name for name, one in documented.model_fields.items() if not one.description]
    found = [] if inspect.isclass(documented) or not _returns(documented) else ["Returns:"]
    if inspect.isclass(documented):
        text += inspect.getdoc(documented.__init__) or ""
    if takes(documented) and "Attributes:" not in text:
        found.append("Args:")
    return [section for section in found if section not in text]


def takes(documented: Any) -> list[str]:
    """Names of the parameters; none where a class has the constructor of its Feast base."""
    if inspect.isclass(documented) and not {"__init__", "__new__"} & vars(documented).keys():
        return []
    return [name for name in inspect.signature(documented).parameters if name != "self"]


def _returns(function: Any) -> bool:
    return str(inspect.signature(function).return_annotation) not in ("None", "NoReturn")


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[".".join(one) for one in NAMES])
def test_a_public_name(module: str, name: str) -> None:
    found = import_module(module)
    assert name in dir(found)
    assert lacking(getattr(found, name)) == []


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_a_project(name: str) -> None:
    method = getattr(Project, name)
    assert lacking(method) == []
    assert "Returns:" in (method.__doc__ or "")
    documented = (method.__doc__ or "").partition("Args:")[2]
    assert [one for one in takes(method) if f"{one}: " not in documented] == []


def test_commands_and_methods_have_the_same_names() -> None:
    from reki_feast.cli import commands

    functions = inspect.getmembers(commands, inspect.isfunction)
    names = {name for name, _ in functions if not name.startswith("_")}
    assert names - {"init"} <= set(METHODS)
