"""config.yaml and docs/config.md in step with the models: `python -m ssondo.config`, with `--write` to renew them."""

import sys
from pathlib import Path

from ssondo.config import Config
from ssondo.config.writing import reference, yaml_text
from ssondo.storage.atomic_files import write_text

_ROOT = Path(__file__).parents[2]


def main() -> None:
    """Write config.yaml and docs/config.md (`--write`), or say whether they are in step."""
    wanted = {_ROOT / "config.yaml": yaml_text(Config()), _ROOT / "docs" / "config.md": reference(Config)}
    if "--write" in sys.argv[1:]:
        for path, text in wanted.items():
            write_text(path, text)
        return
    stale = [path.name for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    if stale:
        sys.exit(f"{', '.join(stale)} out of step with ssondo/config/; run: python -m ssondo.config --write")


if __name__ == "__main__":
    main()
