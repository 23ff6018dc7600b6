"""Puts the docstrings of the installed module into its stub, so that editors show them: stub_docs.py [--check]

The native part has the only copy that is written by hand. Run it after changing that; the tests run it with --check.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from pathlib import Path
from typing import Any, Union

import tidewire

STUB = Path(__file__).parents[1] / "tidewire" / "__init__.pyi"
Documented = Union[ast.FunctionDef, ast.ClassDef]


def documented(body: list[ast.stmt], of: Any) -> list[tuple[Documented, str]]:
    """The functions and classes of a stub, each with its docstring; of overloads the first."""
    found: list[tuple[Documented, str]] = []
    seen: set[str] = set()
    for node in body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        native = getattr(of, node.name)
        if isinstance(node, ast.ClassDef):
            if native.__module__ != "tidewire" or node.name == "EventType":
                continue
            found += documented(node.body, native)
        elif node.name in seen:
            continue
        seen.add(node.name)
        found.append((node, native.__doc__ or ""))
    return found


def with_docs(text: str) -> str:
    lines = text.splitlines()
    nodes = documented(ast.parse(text).body, tidewire)
    for node, doc in sorted(nodes, key=lambda found: found[0].body[0].lineno, reverse=True):
        indent = " " * (node.col_offset + 4)
        written = textwrap.dedent(doc).strip().splitlines()
        quoted = [f'{indent}"""{written[0]}', *(f"{indent}{line}".rstrip() for line in written[1:])]
        quoted[-1:] = [quoted[-1] + '"""'] if len(quoted) == 1 else [quoted[-1], f'{indent}"""']
        first = node.body[0]
        at, end = first.lineno - 1, first.end_lineno
        is_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
        if is_doc:
            lines[at:end] = quoted
        elif isinstance(node, ast.FunctionDef):
            head = lines[at].removesuffix(" ...")
            lines[at : at + 1] = [head, *quoted]
        else:
            # Before decorators, which the position of a function leaves out.
            decorators = getattr(first, "decorator_list", [])
            at = min([at, *(d.lineno - 1 for d in decorators)])
            lines[at:at] = quoted + [""]
    return "\n".join(lines) + "\n"


def main(check: bool) -> int:
    text = STUB.read_text()
    new = with_docs(text)
    if check:
        return 0 if new == text else 1
    STUB.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
