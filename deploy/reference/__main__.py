"""Write everything that is generated in docs anew: `python -m deploy.reference`, or `make reference`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from deploy.reference import asyncapi, page, payloads, words

DOCS = Path(__file__).parents[2] / "docs"
_TOPIC_TABLE = re.compile(r"(?<=<!-- generated: topics -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL)


def files() -> dict[Path, str]:
    """Every generated file and its text."""
    protocol = DOCS / "protocol.md"
    reference = DOCS / "reference"
    schemas = {
        reference / "schemas" / f"{kind.__name__}.json": _json(payloads.schema(kind))
        for kind in payloads.JSON_KINDS
    }
    return {
        reference / "asyncapi.json": _json(asyncapi.document()),
        reference / "mqtt.md": page.text(),
        **schemas,
        protocol: _TOPIC_TABLE.sub(lambda _: words.topic_table(), protocol.read_text(encoding="utf-8")),
    }


def main() -> int:
    """Write what has changed, and remove what is generated no more."""
    wanted = files()
    for path, text in wanted.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(DOCS.parent)}")
    for path in (DOCS / "reference").rglob("*.*"):
        if path not in wanted:
            path.unlink()
            print(f"removed {path.relative_to(DOCS.parent)}")
    return 0


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
