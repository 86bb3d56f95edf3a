"""The one pass over a parsed template: refuses what is not allowed, by name, and has everything else pay.

What is left for Jinja to compile are texts, constants, names, conditions, assignments, loops and macros, all of them
free of any operation on a value: each operator, lookup, call and output has become a filter of OPERATIONS, which no
template can name (its own filters are those of FILTERS). A node that no method here names is refused: Jinja may grow,
this list does not.

Steps are known before they are taken: a loop pays for all its turns when it starts, at the weight of its body, of
whose branches the dearest counts; a macro pays when it is entered. Both then need no counter at run time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from chat.errors import forbidden, too_large
from chat.filters import FILTERS
from chat.functions import FUNCTIONS
from chat.methods import METHODS
from chat.operations import COMPARED
from chat.predicates import TESTS
from chat.rendering import LARGEST

MOST_NODES = 5_000  # the largest of 100 published templates has 1,400
DEEPEST_NODE = 100
MOST_ARGUMENTS = 64
NAME = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]{0,99}")
NOT_OFFERED = frozenset({"self", "lipsum", "cycler", "joiner"})
NAMED_BY_ARGUMENT = {"map": (0, FILTERS), "select": (0, TESTS), "reject": (0, TESTS)}
NAMED_BY_ARGUMENT |= {"selectattr": (1, TESTS), "rejectattr": (1, TESTS)}

# In steps; one is about 40 ns of one core of 2023.
WEIGHTS: dict[type[nodes.Node], int] = {
    nodes.For: 15,
    nodes.Macro: 15,
    nodes.Output: 2,
    nodes.Assign: 2,
    nodes.AssignBlock: 10,
}
OPERATION_WEIGHT = 4
ENTER_WEIGHT = 30

STATEMENTS: dict[str, str] = {
    "Extends": "{% extends %}",
    "Block": "{% block %}",
    "Include": "{% include %}",
    "Import": "{% import %}",
    "FromImport": "{% from … import %}",
    "CallBlock": "{% call %}",
    "FilterBlock": "{% filter %}",
    "ScopedEvalContextModifier": "{% autoescape %}",
    "Pow": "the operator **",
}


def _macro_names(template: nodes.Template) -> set[str]:
    """Without recursion, as nothing has looked yet at how deep the template is nested."""
    waiting: list[nodes.Node] = [template]
    names = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, nodes.Macro):
            names.add(node.name)
        waiting.extend(node.iter_child_nodes())
    return names


class Rewriter(NodeTransformer):
    """For one template, once. Afterwards `names` are the variables that it reads."""

    def __init__(self, template: nodes.Template) -> None:
        self.names: set[str] = set()
        self.callable = FUNCTIONS.keys() | _macro_names(template)
        self.nodes = self.depth = self.weight = self.repeated = 0

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        visitor = self.get_visitor(node)
        if visitor is None:
            name = type(node).__name__
            raise forbidden(STATEMENTS.get(name, name), node.lineno, "write it with if, for, set and macro")
        self.nodes += 1
        if self.nodes > MOST_NODES or self.depth == DEEPEST_NODE:
            much = f"more than {MOST_NODES} parts" if self.depth < DEEPEST_NODE else f"parts {DEEPEST_NODE} deep"
            raise too_large(f"line {node.lineno}: the chat template has {much}", "shorten the chat template")
        self.weight += WEIGHTS.get(type(node), 1)
        self.depth += 1
        rewritten = visitor(node)
        self.depth -= 1
        return rewritten

    keep = NodeTransformer.generic_visit
    visit_Template = visit_TemplateData = visit_Scope = visit_With = visit_Break = visit_Continue = keep
    visit_Assign = visit_And = visit_Or = visit_Not = visit_Neg = visit_Pos = visit_CondExpr = keep

    # statements

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        node.nodes = [self._printed(self.visit(child)) for child in node.nodes]
        return node

    def _printed(self, node: nodes.Expr) -> nodes.Expr:
        return node if isinstance(node, nodes.TemplateData | nodes.Const) else self._operation("{{}}", node)

    def visit_If(self, node: nodes.If) -> nodes.Node:
        node.test = self.visit(node.test)
        bodies = [self._weighed(node, "body"), self._weighed(node, "else_")]
        for other in node.elif_:
            other.test = self.visit(other.test)
            bodies.append(self._weighed(other, "body"))
        self.weight += max(bodies)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise forbidden("a recursive for", node.lineno, "use a macro that calls itself")
        self.repeated += 1
        weight = 1 + self._weighed(node, "target", "body", "test")
        self.repeated -= 1
        node.iter = self._operation("{%for%}", self.visit(node.iter), nodes.Const(weight))
        self.weight += self._weighed(node, "else_")
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        if self.repeated:
            raise forbidden("a macro inside a loop or a macro", node.lineno, "define macros at the top of the template")
        self._check_name(node.name, node.lineno)
        self._check_count(node.args, node.lineno)
        self.repeated += 1
        weight = self._weighed(node, "args", "defaults", "body") + ENTER_WEIGHT
        self.repeated -= 1
        entered = self._operation("{%macro%}", nodes.Const(weight, lineno=node.lineno))
        node.body.insert(0, nodes.ExprStmt(entered, lineno=node.lineno))
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        if node.filter is None:
            node.filter = self._operation("{%set%}", None, line=node.lineno)
        else:
            node.filter = self.visit(node.filter)
        node.target = self.visit(node.target)
        node.body = [self.visit(child) for child in node.body]
        return node

    def _weighed(self, parent: nodes.Node, *fields: str) -> int:
        """Rewrite these fields; their weight, which does not count as the parent's."""
        before, self.weight = self.weight, 0
        for field in fields:
            child = getattr(parent, field)
            if isinstance(child, list):
                child[:] = [self.visit(part) for part in child]
            elif child is not None:
                setattr(parent, field, self.visit(child))
        weight, self.weight = self.weight, before
        return weight

    # names and literals

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        self._check_name(node.name, node.lineno)
        if node.name in NOT_OFFERED:
            raise forbidden(f"the name {node.name}", node.lineno, "use another name")
        if node.ctx == "load":
            if node.name == "loop":
                raise forbidden("loop by itself", node.lineno, "use loop.index, loop.first, loop.last …")
            self.names.add(node.name)
        return node

    def visit_NSRef(self, node: nodes.NSRef) -> nodes.Node:
        self._check_name(node.name, node.lineno)
        self._check_name(node.attr, node.lineno)
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        value = node.value
        if (type(value) is int and value > LARGEST) or (type(value) is float and not math.isfinite(value)):
            raise forbidden("a number beyond 64 bits", node.lineno, "use a smaller number")
        return node

    def visit_List(self, node: nodes.List | nodes.Dict) -> nodes.Node:
        self.keep(node)
        return self._operation("[]", node)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.keep(node)
        return self._operation("[]", node) if node.ctx == "load" else node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.keep(node)
        if not (isinstance(node.key, nodes.Const) and type(node.key.value) is str):
            node.key = self._operation("{:}", node.key)
        return node

    # operators

    def visit_Add(self, node: nodes.Add) -> nodes.Node:
        """A chain of additions is one operation, and no deeper than its length."""
        first: nodes.Expr = node
        others: list[nodes.Expr] = []
        while isinstance(first, nodes.Add):
            others.append(first.right)
            first = first.left
        return self._operation("+", self.visit(first), *[self.visit(other) for other in reversed(others)])

    def visit_Sub(self, node: nodes.BinExpr) -> nodes.Node:
        return self._operation(node.operator or "", self.visit(node.left), self.visit(node.right))

    visit_Mul = visit_Div = visit_FloorDiv = visit_Mod = visit_Sub

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        first, *others = [self.visit(child) for child in node.nodes]
        return self._operation("~", first, *others)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        first = self.visit(node.expr)
        compared = [(operand.op, self.visit(operand.expr)) for operand in node.ops]
        if len(compared) == 1:
            return self._operation(COMPARED[compared[0][0]], first, compared[0][1])
        return self._operation("< <", first, *[part for op, expr in compared for part in (nodes.Const(op), expr)])

    # lookups, calls, filters and tests

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        self._check_name(node.attr, node.lineno)
        return self._operation(".", self._owner(node.node), nodes.Const(node.attr))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        owner, key = self._owner(node.node), node.arg
        if isinstance(key, nodes.Slice):
            ends = [self.visit(end) if end else nodes.Const(None) for end in (key.start, key.stop, key.step)]
            return self._operation("[:]", owner, *ends)
        if isinstance(key, nodes.Const) and type(key.value) is str and key.value.startswith("__"):
            self._check_name(key.value, node.lineno)
        return self._operation("[.]", owner, self.visit(key))

    def _owner(self, node: nodes.Expr) -> nodes.Expr:
        visited: nodes.Expr = node if isinstance(node, nodes.Name) and node.name == "loop" else self.visit(node)
        return visited

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        target = node.node
        if isinstance(target, nodes.Getattr) and target.attr in METHODS:
            return self._call(".()", node, self._owner(target.node), nodes.Const(target.attr))
        if isinstance(target, nodes.Name) and target.name in self.callable:
            return self._call("()", node, self.visit(target))
        name = f".{target.attr}" if isinstance(target, nodes.Getattr) else getattr(target, "name", "of an expression")
        offered = sorted(FUNCTIONS) if isinstance(target, nodes.Name) else sorted(METHODS)
        raise forbidden(f"the call {name}()", node.lineno, f"macros of the template, and {', '.join(offered)}")

    def _call(self, operation: str, node: nodes.Call, *first: nodes.Expr) -> nodes.Filter:
        return self._operation(operation, *first, *self._arguments(node), keywords=node.kwargs)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        self._check_offered("filter", node, FILTERS)
        self._check_named(node)
        self.weight += OPERATION_WEIGHT
        if node.node is None:  # the text of a `{% set name | filter %}` block
            node.node = self._operation("{%set%}", None, line=node.lineno)
        else:
            node.node = self.visit(node.node)
        node.args = self._arguments(node)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        self._check_offered("test", node, TESTS)
        self.weight += OPERATION_WEIGHT
        node.node = self.visit(node.node)
        node.args = self._arguments(node)
        return node

    def _arguments(self, node: nodes.Call | nodes.Filter | nodes.Test) -> list[nodes.Expr]:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise forbidden("a call with * or **", node.lineno, "write the arguments out")
        self._check_count([*node.args, *node.kwargs], node.lineno)
        for keyword in node.kwargs:
            self._check_name(str(keyword.key), node.lineno)
            keyword.value = self.visit(keyword.value)
        return [self.visit(argument) for argument in node.args]

    # checks

    def _check_offered(self, kind: str, node: nodes.Filter | nodes.Test, offered: Iterable[str]) -> None:
        if node.name not in offered:
            names = ", ".join(name for name in sorted(offered) if name.isalpha())
            raise forbidden(f"the {kind} {node.name}", node.lineno, f"the {kind}s are {names}")

    def _check_named(self, node: nodes.Filter) -> None:
        """`map('upper')`: what is named by its text is checked as what is written."""
        at, offered = NAMED_BY_ARGUMENT.get(node.name, (0, {}))
        argument = node.args[at] if offered and len(node.args) > at else None
        if isinstance(argument, nodes.Const) and argument.value not in offered:
            raise forbidden(f"{node.name}({str(argument.value)[:40]!r})", node.lineno, "name one that is allowed")

    def _check_name(self, name: str, line: int) -> None:
        if not NAME.fullmatch(name):
            raise forbidden(
                f"the name {name[:40]!r}", line, "names are ASCII, of up to 100 characters, without __ in front"
            )

    def _check_count(self, arguments: Sequence[Any], line: int) -> None:
        if len(arguments) > MOST_ARGUMENTS:
            raise forbidden(f"more than {MOST_ARGUMENTS} arguments", line, "pass fewer")

    def _operation(
        self, name: str, *values: Any, line: int | None = None, keywords: Sequence[nodes.Keyword] = ()
    ) -> nodes.Filter:
        first, *others = values
        self.weight += OPERATION_WEIGHT
        return nodes.Filter(
            first, name, others, list(keywords), None, None, lineno=first.lineno if line is None else line
        )
