"""Write the table of settings into docs/deployment.md, from the code."""

import re
from pathlib import Path

from mtaio import config

page = Path(__file__).parents[1] / "docs" / "deployment.md"
text = page.read_text(encoding="utf-8")
table = re.compile(r"^\| variable .*?(?=^$|\Z)", re.MULTILINE | re.DOTALL)
page.write_text(table.sub(lambda _: config.as_markdown(), text), encoding="utf-8")
