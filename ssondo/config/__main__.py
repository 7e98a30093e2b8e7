"""Check that config.yaml and docs/config.md are up to date: `python -m ssondo.config`; `--write` updates them."""

import sys
from pathlib import Path

from ssondo.config import Config
from ssondo.config.writing import reference, yaml_text
from ssondo.storage.atomic_files import write_text

_ROOT = Path(__file__).parents[2]


def main() -> None:
    """Write config.yaml and docs/config.md (`--write`), or exit with a message if one of them is out of date."""
    texts = {_ROOT / "config.yaml": yaml_text(Config()), _ROOT / "docs" / "config.md": reference(Config)}
    if "--write" in sys.argv[1:]:
        for path, text in texts.items():
            write_text(path, text)
        return
    stale = [path.name for path, text in texts.items() if not path.is_file() or path.read_text() != text]
    if stale:
        sys.exit(f"not up to date with ssondo/config: {', '.join(stale)}; run: python -m ssondo.config --write")


if __name__ == "__main__":
    main()
