#!/usr/bin/env python3
"""Draws what flash_eval measured.

    report.py DIR

Reads DIR/curves.csv and DIR/summary.json (and run.json, where it is), writes
the plots as SVG and PNG and one self-contained report.html beside them.
Needs matplotlib 3.5 or later and nothing else.
"""

import argparse
import csv
import json
import pathlib
import sys
from collections import defaultdict

NUMBERS = ("n", "d", "nlist", "copies", "bytes_per_vector", "nprobe",
           "recall_at_10", "dco_raw", "dco_unique", "dco_coarse", "train_s",
           "add_s", "search_s", "qps", "threads", "seed")


class InputError(Exception):
    """What was given cannot be drawn; the message is for the user."""


def method_of(row):
    if row["trainer"] == "faiss":
        return "faiss"
    return row["trainer"] + "+" + row["policy"]


def read_rows(path):
    """curves.csv as dictionaries with numbers; a last row that was cut short
    is left out."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = set(NUMBERS + ("dataset", "trainer", "policy", "codec")
                      ) - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"{path}: no column {', '.join(sorted(missing))}")
        rows = []
        for row in reader:
            if None in row.values():
                break
            try:
                for name in NUMBERS:
                    row[name] = float(row[name])
            except ValueError as error:
                raise InputError(
                    f"{path}: line {reader.line_num}: {error}") from None
            row["method"] = method_of(row)
            rows.append(row)
    if not rows:
        raise InputError(f"{path}: no rows")
    return rows


def unique(values):
    """Each value once, in the order of first appearance."""
    return list(dict.fromkeys(values))


class Section:
    """What is compared with each other: one data set at one nlist."""

    def __init__(self, key, rows, summary):
        self.dataset, self.n, self.nlist = key
        self.d = int(rows[0]["d"])
        self.metric = rows[0].get("metric", "")
        self.rows = rows
        self.summary = summary
        self.codecs = unique(row["codec"] for row in rows)
        self.methods = unique(row["method"] for row in rows)
        self.seeds = len({row["seed"] for row in rows})

    def title(self):
        return (f"{self.dataset}, {self.n:,} vectors of dimension {self.d}, "
                f"{self.nlist} posting lists")

    def methods_of(self, codec):
        return unique(r["method"] for r in self.rows if r["codec"] == codec)

    def curve(self, codec, method, cost):
        """Over the seeds: [(nprobe, mean cost, mean, min, max recall)]."""
        points = defaultdict(dict)
        for row in self.rows:
            if row["codec"] == codec and row["method"] == method:
                points[row["nprobe"]][row["seed"]] = (
                    row[cost], row["recall_at_10"])
        # Automatic lists may end sooner for one seed: its last points have
        # no partner and would make the mean jump.
        most = max((len(p) for p in points.values()), default=0)
        curve = []
        for nprobe, by_seed in sorted(points.items()):
            if len(by_seed) < most:
                continue
            costs, recalls = zip(*by_seed.values())
            curve.append((nprobe, sum(costs) / most, sum(recalls) / most,
                          min(recalls), max(recalls)))
        return curve

    def entry(self, codec, method, recall):
        """The summary's object for a method at a recall target, or None."""
        for entry in self.summary:
            if (entry["codec"], entry["method"]) == (codec, method) and \
                    abs(entry["recall"] - recall) < 1e-9:
                return entry
        return None

    def targets(self):
        return sorted({entry["recall"] for entry in self.summary})

    def reaches_a_target(self, codec):
        return any(e["dco_raw"] is not None for e in self.summary
                   if e["codec"] == codec)

    def main_target(self, codec):
        """0.95, or the highest recall below it that stock FAISS (where it
        was not measured: any method) reaches."""
        by = "faiss" if "faiss" in self.methods_of(codec) else None
        reached = [e["recall"] for e in self.summary
                   if e["codec"] == codec and e["dco_raw"] is not None
                   and e["recall"] <= 0.951 and by in (None, e["method"])]
        return max(reached, default=None)


def make_sections(rows, summary):
    keys = unique((r["dataset"], int(r["n"]), int(r["nlist"])) for r in rows)
    sections = []
    for key in keys:
        own_rows = [r for r in rows if
                    (r["dataset"], int(r["n"]), int(r["nlist"])) == key]
        own_summary = [e for e in summary if
                       (e["dataset"], e["n"], e["nlist"]) == key]
        sections.append(Section(key, own_rows, own_summary))
    return sections


def read_json(path, default=None):
    if default is not None and not path.exists():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def make_report(folder):
    # Imported late: --help and errors about the input need no matplotlib.
    import report_page
    import report_plots

    rows = read_rows(folder / "curves.csv")
    sections = make_sections(rows, read_json(folder / "summary.json"))
    run = read_json(folder / "run.json", default={})
    figures = [report_plots.draw(section, folder, len(sections) > 1)
               for section in sections]
    page = report_page.make(sections, figures, run)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return folder / "report.html"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=pathlib.Path)
    arguments = parser.parse_args()
    try:
        print(make_report(arguments.folder))
    except (InputError, OSError, KeyError) as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"report.py: {error}; install python3-matplotlib",
              file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
