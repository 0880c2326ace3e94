"""The public surface is a list: it is sorted, complete, and drawn at the top of errors.py."""

from __future__ import annotations

import inspect
import re

import pytest

import edgesdk
from edgesdk import errors


def test_all_is_sorted_and_complete():
    assert list(edgesdk.__all__) == sorted(edgesdk.__all__)
    plain = {
        name
        for name, value in vars(edgesdk).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("edgesdk.")
    }
    assert plain | set(edgesdk._LAZY) == set(edgesdk.__all__)


@pytest.mark.parametrize("name", edgesdk.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(edgesdk, name)
    assert value.__name__ in {name, "build_model"}
    assert inspect.getdoc(value)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="lode"):
        _ = edgesdk.lode


def test_a_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(edgesdk._LAZY, "build", ("not_installed_anywhere", "build", "cloud"))
    monkeypatch.delitem(vars(edgesdk), "build", raising=False)
    with pytest.raises(edgesdk.MissingExtraError, match="not_installed_anywhere") as caught:
        _ = edgesdk.build
    assert caught.value.hint == "pip install 'edgesdk[cloud]'"


def test_the_error_tree_in_the_docstring_is_the_classes():
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│├└─ ]*)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1] if depth else "Exception"
    real = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert drawn == real
    assert sorted(real) == list(errors.__all__)


def test_a_hint_stands_on_its_own_line():
    assert str(edgesdk.UsageError("no", hint="do this")) == "no\nhint: do this"
    assert str(edgesdk.UsageError("no")) == "no"
