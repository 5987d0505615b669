#!/usr/bin/env python3
"""flash_groundtruth as its users meet it: arguments, exit codes, files.

usage: test_flash_groundtruth.py --groundtruth PROGRAM [unittest arguments]
"""

import os
import random
import struct
import subprocess
import sys
import tempfile
import unittest

PROGRAM = None
D = 8


def fbin(vectors):
    return struct.pack("<II", len(vectors), D) + b"".join(
        struct.pack(f"<{D}f", *v) for v in vectors)


class GroundTruthTool(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        rng = random.Random(1)
        # Small integers: many equal distances.
        self.base = [[rng.randrange(4) for _ in range(D)] for _ in range(300)]
        self.queries = [[rng.randrange(4) for _ in range(D)]
                        for _ in range(30)]
        self.write("base.fbin", fbin(self.base))
        self.write("query.fbin", fbin(self.queries))

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)

    def run_tool(self, out="gt.ibin", base="base.fbin", queries="query.fbin",
                 metric="l2", more=()):
        return subprocess.run(
            [PROGRAM, "--base", self.path(base), "--queries",
             self.path(queries), "--metric", metric, "--out", self.path(out),
             *more], capture_output=True, text=True, check=False)

    def expect_ids(self, rows, k):
        for query in self.queries:
            order = sorted(range(rows), key=lambda i: (
                sum((a - b) ** 2 for a, b in zip(self.base[i], query)), i))
            yield order[:k]

    def test_ids(self):
        for rows in (300, 200):
            done = self.run_tool(more=["--k", "20", "--rows", str(rows),
                                       "--threads", "2"])
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            with open(self.path("gt.ibin"), "rb") as f:
                data = f.read()
            self.assertEqual(struct.unpack("<II", data[:8]), (30, 20))
            self.assertEqual(len(data), 8 + 4 * 30 * 20)
            for q, ids in enumerate(self.expect_ids(rows, 20)):
                self.assertEqual(
                    list(struct.unpack_from("<20i", data, 8 + 80 * q)), ids)

    def test_hdf5_in_and_out(self):
        done = self.run_tool(out="set.hdf5", more=["--k", "5"])
        self.assertEqual(done.returncode, 0, done.stderr)
        again = self.run_tool(out="gt.ivecs", base="set.hdf5",
                              queries="set.hdf5", more=["--k", "5"])
        self.assertEqual(again.returncode, 0, again.stderr)
        with open(self.path("gt.ivecs"), "rb") as f:
            data = f.read()
        for q, ids in enumerate(self.expect_ids(300, 5)):
            self.assertEqual(
                list(struct.unpack_from("<6i", data, 24 * q)), [5] + ids)

    def test_help(self):
        done = subprocess.run([PROGRAM, "--help"], capture_output=True,
                              text=True, check=False)
        self.assertEqual(done.returncode, 0)
        for option in ("--base", "--queries", "--k", "--metric", "--out",
                       "--threads", "--rows"):
            self.assertIn(option, done.stdout)

    def test_bad_input(self):
        self.write("short.fbin", fbin(self.base)[:-1])
        self.write("wide.fbin", struct.pack("<II8f", 1, 8, *range(8)))
        self.write("narrow.fbin", struct.pack("<II4f", 1, 4, *range(4)))
        self.write("zero.fbin", fbin([[0] * D]))
        self.write("nan.fbin", fbin([[float("nan")] * D]))
        self.write("gt.ibin", b"old")
        before = sorted(os.listdir(self.folder))
        k = ["--k", "5"]
        for arguments, words in (
                (dict(base="none.fbin"), "No such file"),
                (dict(base="short.fbin"), "the file has 9599 bytes"),
                (dict(base="nan.fbin", more=["--k", "1"]), "row 0 holds"),
                (dict(queries="narrow.fbin"), "dimension 4, but"),
                (dict(queries="zero.fbin", metric="angular", more=k),
                 "row 0 is all zeros"),
                (dict(metric="ip"), "must be l2 or angular"),
                (dict(out="gt.txt"), "unknown extension"),
                (dict(out="none/gt.ibin"), "cannot write"),
                (dict(out="base.fbin"), "unknown extension"),
                (dict(more=["--k", "0"]), "k is 0"),
                (dict(more=["--k", "301"]), "between 1 and the 300 rows"),
                (dict(more=["--k", "many"]), "--k"),
                (dict(more=k + ["--rows", "301"]), "between 1 and 300"),
                (dict(more=k + ["--rows", "0"]), "--rows"),
                (dict(more=k + ["--threads", "-1"]), "--threads"),
                (dict(more=["--what"]), "--what")):
            with self.subTest(arguments):
                done = self.run_tool(**arguments)
                self.assertEqual(done.returncode, 2)
                self.assertIn(words, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                self.assertTrue(done.stderr.startswith("flash_groundtruth: "))
                self.assertEqual(done.stdout, "")
                self.assertEqual(sorted(os.listdir(self.folder)), before)
        with open(self.path("gt.ibin"), "rb") as f:
            self.assertEqual(f.read(), b"old")

    def test_out_is_not_an_input(self):
        done = self.run_tool(out="set.hdf5", more=["--k", "5"])
        self.assertEqual(done.returncode, 0, done.stderr)
        os.symlink(self.path("set.hdf5"), self.path("link.hdf5"))
        done = self.run_tool(base="set.hdf5", out="link.hdf5")
        self.assertEqual(done.returncode, 2)
        self.assertIn("is also read from", done.stderr)


if __name__ == "__main__":
    at = sys.argv.index("--groundtruth")
    PROGRAM = os.path.abspath(sys.argv[at + 1])
    del sys.argv[at:at + 2]
    unittest.main()
