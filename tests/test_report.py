#!/usr/bin/env python3
"""eval/report.py on what flash_eval writes.

Ends with 77 (CTest: skipped) where no python with matplotlib is found.

usage: test_report.py --program FLASH_EVAL --dataset FILE
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from html.parser import HTMLParser
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIGURES = ("overview", "recall_dco", "recall_qps", "gain")
PROGRAM = DATASET = PYTHON = None


def drawing_python():
    for python in ("/usr/bin/python3", sys.executable, "python3"):
        try:
            subprocess.run([python, "-c", "import matplotlib"], check=True,
                           capture_output=True)
            return python
        except (OSError, subprocess.CalledProcessError):
            continue
    return None


def measure(out, *arguments):
    subprocess.run(
        [PROGRAM, "--dataset", DATASET, "--out", str(out), "--rows", "2000",
         "--queries", "50", "--em-niter", "10", *arguments],
        check=True, capture_output=True, timeout=250)


def report(folder):
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    environment.pop("DISPLAY", None)
    return subprocess.run(
        [PYTHON, str(ROOT / "eval" / "report.py"), str(folder)],
        capture_output=True, text=True, timeout=250, env=environment)


class Page(HTMLParser):
    """Open tags that were never closed, ids, and addresses of other files."""

    VOID = {"meta", "br", "img", "link", "hr", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.outside, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            # Namespaces look like addresses and are none.
            if name in ("src", "href", "xlink:href") and \
                    not value.startswith("#"):
                self.outside.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data):
        self.text += data


class Report(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name)

    def check_page(self, figures):
        result = report(self.out)
        self.assertEqual(result.returncode, 0, result.stderr)
        text = (self.out / "report.html").read_text(encoding="utf-8")
        page = Page(text)
        self.assertEqual(page.open, [])
        self.assertEqual(page.outside, [])
        self.assertEqual(len(page.ids), len(set(page.ids)))
        self.assertEqual(text.count("<svg"), len(figures))
        for name in figures:
            ElementTree.parse(self.out / f"{name}.svg")
            png = (self.out / f"{name}.png").read_bytes()
            self.assertEqual(png[:8], b"\x89PNG\r\n\x1a\n")
            self.assertGreater(len(png), 5000)
        return page

    def test_whole_run(self):
        measure(self.out, "--nlist", "32", "--seeds", "2",
                "--codec", "flat,pq8,pq8+rerank")
        page = self.check_page(FIGURES)
        for words in ("gmm+responsibility", "flash_eval --dataset",
                      "wallsift", "Machine", "coarse"):
            self.assertIn(words, page.text)

    def test_two_numbers_of_lists(self):
        measure(self.out, "--nlist", "16,32", "--methods", "faiss,gmm+air")
        name = pathlib.Path(DATASET).stem
        self.check_page([f"{figure}-{name}-{nlist}" for nlist in (16, 32)
                         for figure in FIGURES])

    def test_every_method(self):
        measure(self.out, "--nlist", "16", "--methods", "all")
        self.check_page(FIGURES)

    def test_without_stock_faiss_and_low_recall(self):
        measure(self.out, "--nlist", "32", "--methods", "gmm+air",
                "--nprobe", "1")
        self.check_page(["recall_dco", "recall_qps"])

    def test_cut_off_row(self):
        measure(self.out, "--nlist", "32", "--methods", "faiss")
        curves = self.out / "curves.csv"
        curves.write_bytes(curves.read_bytes()[:-20])
        self.check_page(FIGURES)

    def test_refused(self):
        for files in ({}, {"curves.csv": "a,b\n1,2\n", "summary.json": "[]"},
                      {"curves.csv": "", "summary.json": "[]"}):
            for name, text in files.items():
                (self.out / name).write_text(text)
            result = report(self.out)
            self.assertEqual(result.returncode, 2)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        measure(self.out, "--nlist", "32", "--methods", "faiss",
                "--nprobe", "1")
        (self.out / "summary.json").write_text("[{")
        self.assertEqual(report(self.out).returncode, 2)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    PROGRAM = arguments[arguments.index("--program") + 1]
    DATASET = arguments[arguments.index("--dataset") + 1]
    PYTHON = drawing_python()
    if PYTHON is None:
        print("skipped: no python with matplotlib (python3-matplotlib)")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0]] + arguments[4:])
