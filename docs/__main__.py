"""`python -m docs`: writes what is made of the code, pages and schemas; `make docs` calls it."""

from __future__ import annotations

import sys

from .generated import FOLDER, generated


def main() -> int:
    """Write what has changed, and say so."""
    for name, text in generated().items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(f"docs/{name}: written")
    return 0


sys.exit(main())
