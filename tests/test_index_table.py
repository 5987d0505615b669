#!/usr/bin/env python3
"""docs/index_ivf.md is complete and true to its word: every public member of
faiss::IndexIVF in the FAISS in use is in it, and every test it names exists.
"""

import argparse
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def struct_body(text, name):
    """What stands between the braces of a struct; comments removed."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
    start = re.search(r"\bstruct %s\b[^;{]*{" % name, text)
    if not start:
        return ""
    depth, begin = 1, start.end()
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[begin:at]
    raise ValueError("struct %s does not end" % name)


def members(body, name):
    """Names of functions and data declared in a struct."""
    found = set()
    for declaration in re.split(r"[;{}]", body):
        if declaration.strip().startswith(("return", "using")):
            continue
        declaration = re.sub(r"=.*", "", declaration, flags=re.S)
        function = re.search(r"([A-Za-z_]\w*)\s*\(", declaration)
        if function:
            found.add(function.group(1))
            continue
        data = re.search(r"[\w>*&]\s+\**([A-Za-z_]\w*)\s*$", declaration)
        if data:
            found.add(data.group(1))
    return found - {name}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--header", required=True, help="faiss/IndexIVF.h")
    args = parser.parse_args()
    table = (ROOT / "docs" / "index_ivf.md").read_text()
    header = pathlib.Path(args.header).read_text()

    structs = ["Level1Quantizer", "IndexIVFInterface", "IndexIVF",
               "SearchParametersIVF"]
    wanted = set()
    for name in structs:
        wanted |= members(struct_body(header, name), name)
    named = set(re.findall(r"[A-Za-z_]\w*", " ".join(
        re.findall(r"`([^`]*)`", table))))
    missing = sorted(wanted - named)

    cases = set()
    for path in (ROOT / "tests").glob("test_*.cpp"):
        text = re.sub(r'"\s*\n\s*"', "", path.read_text())
        cases |= set(re.findall(r'TEST_CASE\(\s*"([^"]+)"', text))
    tests = {" ".join(name.split())
             for name in re.findall(r'"([^"|]{8,}?)"', table)}
    absent = sorted(tests - cases)

    for name in missing:
        print("not in docs/index_ivf.md: %s" % name)
    for name in absent:
        print('no test is called "%s"' % name)
    print("%d members, %d tests" % (len(wanted), len(tests)))
    # a table or a header that could not be read has next to nothing
    return 1 if missing or absent or len(wanted) < 40 or len(tests) < 40 else 0


if __name__ == "__main__":
    sys.exit(main())
