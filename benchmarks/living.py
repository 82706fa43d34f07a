"""What one can live with: each part of it prints what it measures.

    python benchmarks/living.py PART --data DIR --model cifar100-base50.onnx --out docs/results/living.json

`--images` is how many images of each new class are learned, 100 or up to 500; the file has a part of 500 as `PART@500`.
`--out` keeps the parts that are in the file already. Parts: corrections, digits, expected, forget, learned-twins,
ledger, one-class, ota, other-kinds, twins, unknown.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import ledger, lessons, living_digits, ota, unknown

IMAGES = 100
PARTS = {
    "digits": living_digits.run,
    "ledger": ledger.run,
    "ota": ota.run,
    "unknown": unknown.run,
    **lessons.PARTS,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--cache", type=Path, default=Path("out/living"))
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    options.name = options.part if options.images == IMAGES else f"{options.part}@{options.images}"
    found = PARTS[options.part](options)
    if options.out:
        before = json.loads(options.out.read_text()) if options.out.exists() else {}
        options.out.write_text(json.dumps({**before, options.name: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
