#!/usr/bin/env python3
"""Checks that README.md shows the differences between the programs as they
are; with --write it puts them there."""

import difflib
import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).resolve().parent


def difference(example):
    before, after = (
        (FOLDER / example / f"{name}.cpp").read_text().splitlines()
        for name in ("before", "after"))
    lines = difflib.unified_diff(
        before, after, f"{example}/before.cpp", f"{example}/after.cpp",
        lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith("@@"))


def main():
    readme = FOLDER / "README.md"
    text = readme.read_text()
    right = text
    for example in ("ivf_flat", "ivf_pq"):
        block = f"```diff\n{difference(example)}\n```"
        right, count = re.subn(
            rf"```diff\n--- {example}/.*?\n```", lambda _: block, right,
            flags=re.DOTALL)
        if count != 1:
            sys.exit(f"README.md shows {count} differences of {example}")
    if "--write" in sys.argv[1:]:
        readme.write_text(right)
    elif right != text:
        sys.exit("README.md does not show the programs as they are: "
                 "run examples/check_readme.py --write")


if __name__ == "__main__":
    main()
