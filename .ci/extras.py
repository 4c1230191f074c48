"""Print the requirements of the extras named on the command line, one a line.

`pip install .[dev]` would build the crate only to learn what to install.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
for extra in sys.argv[1:]:
    for requirement in project["optional-dependencies"][extra]:
        print(f'"{requirement}"')
