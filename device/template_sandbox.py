"""The sandbox of chat templates. A template comes with an artifact, so it is hostile: it reaches nothing but its own
values, and its work and its text are bounded.

Jinja's sandbox keeps a template from Python's objects. What it does not bound is added here, by one budget of units for
a rendering: every loop and macro pays for each round, every operation for the size of what it reads and makes. Sizes
follow references, so that nested lists that repeat themselves pay for what they would be when written out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

__all__ = ["Sandbox"]

_UNITS = 1 << 25  # a character is one
_ELEMENT = 16  # of a list, or a round of a loop
_CALL = 128
_MAX_BITS = 4096  # of an integer
_MAX_INDENT = 16
_TIME_FORMAT = re.compile(r"(?:[^%]|%-?[A-Za-z%])*")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (
        str,
        _names(
            "capitalize count endswith find index isalnum isalpha isdigit islower isnumeric isspace isupper join lower"
            " lstrip partition removeprefix removesuffix replace rfind rpartition rsplit rstrip split splitlines"
            " startswith strip swapcase title upper"
        ),
    ),
    (dict, _names("get items keys values")),
    (list, _names("count index")),
    (tuple, _names("count index")),
    (int, _names("")),
    (float, _names("")),
)
_FILTERS = _names(
    "abs capitalize count d default dictsort first float int items join last length list lower map max min reject"
    " rejectattr replace reverse round safe select selectattr sort string title trim unique upper"
)
_GLOBALS = _names("dict namespace range")


class Sandbox(ImmutableSandboxedEnvironment):
    """For one rendering. It has the settings, and the functions, of transformers' chat templates.

    Methods without an underscore are called by compiled templates. Raises SecurityError where a limit is met.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        self._left = _UNITS
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], finalize=self._written
        )
        self.globals = {name: value for name, value in self.globals.items() if name in _GLOBALS}
        self.globals["strftime_now"] = _now
        self.filters = {name: self._paid(function) for name, function in self.filters.items() if name in _FILTERS}
        self.filters |= {"join": self._join, "replace": self._replace, "tojson": self._to_json}
        self.tests = {name: self._paid(function) for name, function in self.tests.items()}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of Python's own types only the methods that templates need."""
        allowed = next((names for kind, names in _METHODS if isinstance(obj, kind)), None)
        return super().is_safe_attribute(obj, attr, value) and (allowed is None or attr in allowed)

    def wrap_str_format(self, value: Any) -> None:
        """`format` of text is no method that templates get: a width in it fills memory."""

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call in a template."""
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if owner is self:
            return function(*args)
        self.pay(_CALL)
        for value in (*args, *kwargs.values()):
            self.weighed(value)
        if isinstance(owner, str):
            self.weighed(owner)
            if name == "join":
                return self._join(args[0], owner)
            if name == "replace":
                return self._replace(owner, *args)
        return self.weighed(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Operators whose results can be large."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"the operator {operator} is not allowed here")
        n_elements = [len(side) if isinstance(side, (str, list, tuple)) else 0 for side in (left, right)]
        if operator == "*" and any(n_elements):
            times = right if n_elements[0] else left
            self.pay(_ELEMENT * sum(n_elements) * max(0, times if isinstance(times, int) else 0))
        elif operator == "*" and _bits(left) + _bits(right) > _MAX_BITS:
            raise SecurityError(f"a number of more than {_MAX_BITS} bits is too large")
        return self.weighed(super().call_binop(context, operator, left, right))

    def pay(self, n_units: int) -> None:
        """Takes units from the budget."""
        self._left -= n_units
        if self._left < 0:
            raise SecurityError(f"it does too much work, or its text is too long (more than {_UNITS} units)")

    def weighed(self, value: Any) -> Any:
        """The value, paid for by its size; what is made one by one pays one by one."""
        if isinstance(value, str):
            self.pay(1 + len(value))
        elif isinstance(value, (list, tuple, set, frozenset, Mapping)) or _is_view(value):
            self._weigh_members(value)
        elif isinstance(value, range):
            self.pay(_ELEMENT * (1 + len(value)))
        elif isinstance(value, Iterator):
            return self._one_by_one(value)
        else:
            self.pay(1)
        return value

    def concatenated(self, *values: Any) -> str:
        """What `~` makes."""
        return "".join(str(self._written(value)) for value in values)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Metered(self).visit(source), *args, **kwargs)

    def _written(self, value: Any) -> Any:
        """A value that is about to become text: what would write out objects of Jinja is refused."""
        if isinstance(value, (str, int, float, list, tuple, dict, Undefined)) or value is None:
            return self.weighed(value)
        raise SecurityError(f"{type(value).__name__} cannot be written")

    def _weigh_members(self, value: Any) -> None:
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                self.pay(1 + len(one))
            elif isinstance(one, Mapping):
                self.pay(_ELEMENT * (1 + 2 * len(one)))
                waiting += [*one.keys(), *one.values()]
            elif isinstance(one, (list, tuple, set, frozenset)) or _is_view(one):
                self.pay(_ELEMENT * (1 + len(one)))
                waiting += one
            else:
                self.pay(1)

    def _one_by_one(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.pay(_ELEMENT)
            yield self.weighed(value)

    def _paid(self, function: Any) -> Callable[..., Any]:
        """A filter or a test that pays for what it reads and makes."""

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            self.pay(_CALL)
            for value in (*args, *kwargs.values()):
                if not isinstance(value, Iterator):
                    self.weighed(value)
            return self.weighed(function(*args, **kwargs))

        return run

    def _join(self, value: Any, d: str = "", attribute: str | int | None = None) -> str:
        """Of lists: the filter and the method of text."""
        items = list(self.weighed(value))
        if attribute is not None:
            items = [self.getitem(item, attribute) for item in items]
        self.pay(len(items) * len(str(d)))
        return str(d).join(str(self._written(item)) for item in items)

    def _replace(self, text: Any, old: str, new: str, count: int = -1) -> str:
        """Of text: the filter and the method."""
        whole, old, new = str(self._written(text)), str(old), str(new)
        self.pay(len(whole) + whole.count(old) * len(new))
        return whole.replace(old, new, -1 if count is None else count)

    def _to_json(self, value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
        if indent is not None and (not isinstance(indent, int) or not 0 <= indent <= _MAX_INDENT):
            raise SecurityError(f"indent is {indent!r}, at most {_MAX_INDENT} are allowed")
        parts = []
        for part in json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent).iterencode(self.weighed(value)):
            self.pay(len(part))
            parts.append(part)
        return "".join(parts)


class _Metered(NodeTransformer):
    """Puts calls of the sandbox's methods where Jinja would compile to bare Python."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Pays for what it goes through, and for each round."""
        self.generic_visit(node)
        node.iter = self._call("weighed", node.iter)
        return self._with_rounds(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        """Pays for each call."""
        return self._with_rounds(self.generic_visit(node))

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        """Pays for each call."""
        return self._with_rounds(self.generic_visit(node))

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """The operator `~`."""
        self.generic_visit(node)
        return self._call("concatenated", *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """Pays for both sides."""
        self.generic_visit(node)
        node.expr = self._call("weighed", node.expr)
        for operand in node.ops:
            operand.expr = self._call("weighed", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """Pays for the copies that slices are."""
        self.generic_visit(node)
        return self._call("weighed", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        """Pays for its members, and theirs."""
        return self._call("weighed", self.generic_visit(node))

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        """The same."""
        return self._call("weighed", self.generic_visit(node))

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        """The same, but for a list of targets."""
        self.generic_visit(node)
        return self._call("weighed", node) if node.ctx == "load" else node

    def _with_rounds(self, node: Any) -> nodes.Node:
        own = _ELEMENT + sum(_data_length(child) for child in node.body)
        paid = nodes.ExprStmt(self._call("pay", nodes.Const(own)))
        node.body.insert(0, paid.set_lineno(node.lineno).set_environment(self._sandbox))
        return node

    def _call(self, method: str, *args: Any) -> nodes.Expr:
        call: Any = nodes.Call(nodes.EnvironmentAttribute(method), list(args), [], None, None)
        return call.set_lineno(args[0].lineno or 1).set_environment(self._sandbox)


def _data_length(node: nodes.Node) -> int:
    """Characters of fixed text that a round writes, what inner rounds write left out."""
    if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock)):
        return 0
    own = len(node.data) if isinstance(node, nodes.TemplateData) else 0
    return own + sum(_data_length(child) for child in node.iter_child_nodes())


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _is_view(value: Any) -> bool:
    return isinstance(value, (type({}.keys()), type({}.values()), type({}.items())))


def _now(form: str) -> str:
    if len(form) > 256 or not _TIME_FORMAT.fullmatch(form):
        raise SecurityError("the format of the time is not one that templates use")
    return datetime.now().astimezone().strftime(form)
