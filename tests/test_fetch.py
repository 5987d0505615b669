#!/usr/bin/env python3
"""datasets/fetch.py against a server on this machine that breaks off,
ignores ranges, changes its file or has nothing.

usage: test_fetch.py [--groundtruth PROGRAM] [unittest arguments]
"""

import contextlib
import http.server
import importlib.util
import io
import math
import os
import random
import stat
import struct
import sys
import tempfile
import threading
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GROUNDTRUTH = None

spec = importlib.util.spec_from_file_location(
    "fetch", os.path.join(ROOT, "datasets", "fetch.py"))
sys.dont_write_bytecode = True
fetch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fetch)

# A proxy of the environment must not see requests to this machine.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1"


def fbin(rows, dim, seed):
    rng = random.Random(seed)
    values = [rng.uniform(-1, 1) for _ in range(rows * dim)]
    return struct.pack("<II", rows, dim) + struct.pack(
        f"<{rows * dim}f", *values)


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` (name: bytes). cuts: for each request to come, how many
    bytes to send before closing the connection; None: all."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.cuts = []
        self.ranges = True
        self.etag = '"one"'
        self.status = None
        self.seen = []  # (name, Range header) of every request

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        name = self.path.lstrip("/")
        wanted = self.headers.get("Range")
        server.seen.append((name, wanted))
        if server.status or name not in server.files:
            self.send_error(server.status or 404)
            return
        data = server.files[name]
        total = len(data)
        same = self.headers.get("If-Range", server.etag) == server.etag
        if server.ranges and wanted and same:
            first, last = wanted.removeprefix("bytes=").split("-")
            first, last = int(first), min(int(last), total - 1)
            data = data[first:last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", server.etag)
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        with contextlib.suppress(ConnectionError):  # the client has enough
            self.wfile.write(data[:cut])
        self.close_connection = True


class FetchTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        path = os.path.join(ROOT, "datasets", "wallsift-128-euclidean.hdf5")
        with open(path, "rb") as f:
            cls.sample = f.read()
        cls.base = fbin(3000, fetch.DEEP_DIM, 1)
        cls.queries = fbin(fetch.DEEP_QUERIES, fetch.DEEP_DIM, 2)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = folder.name
        self.server = Server({
            "sift-128-euclidean.hdf5": self.sample,
            "base.1B.fbin": self.base,
            "query.public.10K.fbin": self.queries,
        })
        thread = threading.Thread(
            target=self.server.serve_forever, args=(0.02,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def run_fetch(self, *arguments, url=None, size=None, sha256=None):
        """main() with the recorded size of the sample instead of SIFT1M's;
        returns (exit code, stdout, stderr)."""
        original = fetch.files_of

        def files_of(name, rows):
            files = original(name, rows)
            if name == "sift1m":
                files[0].size = size or len(self.sample)
                files[0].sha256 = sha256
            return files

        out, err = io.StringIO(), io.StringIO()
        fetch.files_of = files_of
        try:
            with contextlib.redirect_stdout(out), \
                    contextlib.redirect_stderr(err):
                code = fetch.main(list(arguments) + [
                    "--out", self.out, "--base-url", url or self.server.url,
                    "--retry-wait", "0.01"])
        finally:
            fetch.files_of = original
        return code, out.getvalue(), err.getvalue()

    def read(self, name):
        with open(os.path.join(self.out, name), "rb") as f:
            return f.read()

    def names(self):
        return sorted(os.listdir(self.out))

    def test_whole_file(self):
        code, out, err = self.run_fetch("sift1m")
        self.assertEqual(code, 0, err)
        self.assertEqual(self.names(), ["sift-128-euclidean.hdf5"])
        self.assertEqual(self.read("sift-128-euclidean.hdf5"), self.sample)
        self.assertIn("no published checksum", out)
        # Again: nothing is asked of the server.
        asked = len(self.server.seen)
        code, out, err = self.run_fetch("sift1m")
        self.assertEqual((code, len(self.server.seen)), (0, asked))
        self.assertIn("already there", out)

    def test_resumes_within_a_run(self):
        self.server.cuts = [100_000, 1, 2_000_000]
        code, _, err = self.run_fetch("sift1m")
        self.assertEqual(code, 0, err)
        self.assertEqual(self.read("sift-128-euclidean.hdf5"), self.sample)
        starts = [int(r.split("=")[1].split("-")[0])
                  for _, r in self.server.seen]
        self.assertEqual(starts, [0, 100_000, 100_001, 2_100_001])

    def test_resumes_in_a_later_run(self):
        self.server.cuts = [100_000]
        code, _, err = self.run_fetch("sift1m", "--retries", "0")
        self.assertEqual(code, 2)
        self.assertIn("connection closed at byte 100000", err)
        self.assertNotIn("sift-128-euclidean.hdf5", self.names())
        code, _, err = self.run_fetch("sift1m")
        self.assertEqual(code, 0, err)
        self.assertTrue(self.server.seen[-1][1].startswith("bytes=100000-"))
        self.assertEqual(self.read("sift-128-euclidean.hdf5"), self.sample)
        self.assertEqual(self.names(), ["sift-128-euclidean.hdf5"])

    def test_changed_file_starts_again(self):
        self.server.cuts = [100_000]
        self.run_fetch("sift1m", "--retries", "0")
        changed = self.sample[:-1] + bytes([self.sample[-1] ^ 1])
        changed = changed[:5000] + b"other" + changed[5005:]
        self.server.files["sift-128-euclidean.hdf5"] = changed
        self.server.etag = '"two"'
        code, _, err = self.run_fetch("sift1m")
        self.assertEqual(code, 0, err)
        self.assertIn("starting again", err)
        self.assertEqual(self.read("sift-128-euclidean.hdf5"), changed)

    def test_server_without_ranges(self):
        self.server.ranges = False
        self.server.cuts = [100_000]
        code, _, err = self.run_fetch("sift1m")
        self.assertEqual(code, 0, err)
        self.assertEqual(self.read("sift-128-euclidean.hdf5"), self.sample)

    def test_server_that_keeps_failing(self):
        self.server.status = 503
        code, _, err = self.run_fetch("sift1m", "--retries", "3")
        self.assertEqual(code, 2)
        self.assertIn("HTTP 503", err)
        self.assertEqual(len(self.server.seen), 4)

    def test_missing_file_is_not_retried(self):
        self.server.files.clear()
        code, _, err = self.run_fetch("sift1m")
        self.assertEqual((code, len(self.server.seen)), (2, 1))
        self.assertIn("HTTP 404", err)

    def test_wrong_remote_size(self):
        code, _, err = self.run_fetch("sift1m", size=len(self.sample) + 1)
        self.assertEqual(code, 2)
        self.assertIn(f"has {len(self.sample)} bytes, expected "
                      f"{len(self.sample) + 1}", err)

    def test_wrong_structure(self):
        self.server.files["sift-128-euclidean.hdf5"] = \
            b"<html>" + bytes(len(self.sample) - 6)
        code, _, err = self.run_fetch("sift1m")
        self.assertEqual(code, 2)
        self.assertIn("not an HDF5 file", err)
        self.assertNotIn("sift-128-euclidean.hdf5", self.names())

    def test_cut_hdf5_is_refused(self):
        short = self.sample[:1_000_000]
        self.server.files["sift-128-euclidean.hdf5"] = short
        code, _, err = self.run_fetch("sift1m", size=len(short))
        self.assertEqual(code, 2)
        self.assertIn("cut to 1000000", err)

    def test_wrong_checksum(self):
        code, _, err = self.run_fetch("sift1m", sha256="0" * 64)
        self.assertEqual(code, 2)
        self.assertIn("SHA-256", err)
        self.assertNotIn("sift-128-euclidean.hdf5", self.names())

    def test_no_network(self):
        url = self.server.url
        self.server.shutdown()
        self.server.server_close()
        code, _, err = self.run_fetch("deep10m", url=url)
        self.assertEqual(code, 2)
        base = os.path.join(self.out, "deep10m", "base.10M.fbin.part")
        self.assertIn("cannot reach", err)
        self.assertIn(f"curl -r 0-3840000007 -o {base} {url}/base.1B.fbin",
                      err)
        self.assertIn("3840008 bytes", err)

    def test_deep_takes_the_first_rows(self):
        self.server.cuts = [None, 5000]
        code, _, err = self.run_fetch("deep10m", "--rows", "2000",
                                      "--groundtruth", self.program())
        self.assertEqual(code, 0, err)
        size = 8 + 2000 * 4 * fetch.DEEP_DIM
        expected = struct.pack("<I", 2000) + self.base[4:size]
        self.assertEqual(self.read("deep2k/base.2K.fbin"), expected)
        self.assertEqual(self.read("deep2k/query.public.10K.fbin"),
                         self.queries)
        self.assertEqual(self.server.seen[-1],
                         ("base.1B.fbin", f"bytes=5000-{size - 1}"))
        self.check_ground_truth(expected)
        # A second run finds everything.
        code, out, err = self.run_fetch("deep10m", "--rows", "2000",
                                        "--groundtruth", "/nonexistent")
        self.assertEqual(code, 0, err)
        self.assertEqual(out.count("already there"), 3)

    def test_deep_without_ranges_stops_reading(self):
        self.server.ranges = False
        code, _, err = self.run_fetch("deep10m", "--rows", "100",
                                      "--groundtruth", self.program())
        self.assertEqual(code, 0, err)
        self.assertEqual(len(self.read("deep100/base.100.fbin")),
                         8 + 100 * 4 * fetch.DEEP_DIM)

    def test_deep_of_another_dimension(self):
        wrong = bytearray(self.base)
        wrong[4] = 95
        self.server.files["base.1B.fbin"] = bytes(wrong)
        code, _, err = self.run_fetch("deep10m", "--rows", "100")
        self.assertEqual(code, 2)
        self.assertIn("dimension 95, expected at least 100 of 96", err)

    def test_hand_placed_part_is_used(self):
        os.makedirs(os.path.join(self.out, "deep2k"))
        for name, data in (("base.2K.fbin.part", self.base[:768_008]),
                           ("query.public.10K.fbin", self.queries)):
            with open(os.path.join(self.out, "deep2k", name), "wb") as f:
                f.write(data)
        url = self.server.url
        self.server.shutdown()
        self.server.server_close()
        code, _, err = self.run_fetch("deep10m", "--rows", "2000",
                                      "--groundtruth", self.program(), url=url)
        self.assertEqual(code, 0, err)
        self.assertEqual(self.read("deep2k/base.2K.fbin")[:8],
                         struct.pack("<II", 2000, 96))

    def test_ground_truth_program_that_fails(self):
        code, _, err = self.run_fetch("deep10m", "--rows", "2000",
                                      "--groundtruth", "/nonexistent")
        self.assertEqual(code, 2)
        self.assertIn("/nonexistent: No such file", err)

    def test_bad_arguments(self):
        for bad in (["sift2m"], ["deep10m", "--rows", "0"],
                    ["sift1m", "--retries", "-1"]):
            with self.assertRaises(SystemExit) as end, \
                    contextlib.redirect_stderr(io.StringIO()):
                fetch.main(bad)
            self.assertEqual(end.exception.code, 2)

    def program(self):
        if not GROUNDTRUTH:
            self.skipTest("needs --groundtruth PROGRAM")
        self.assertTrue(os.stat(GROUNDTRUTH).st_mode & stat.S_IXUSR)
        return GROUNDTRUTH

    def check_ground_truth(self, base):
        """The first query's 100 ids against a plain sort."""
        data = self.read("deep2k/groundtruth.2K.ibin")
        self.assertEqual(struct.unpack("<II", data[:8]),
                         (fetch.DEEP_QUERIES, 100))
        dim = fetch.DEEP_DIM
        rows = [struct.unpack_from(f"<{dim}f", base, 8 + 4 * dim * i)
                for i in range(2000)]
        query = struct.unpack_from(f"<{dim}f", self.queries, 8)
        order = sorted(range(2000),
                       key=lambda i: (math.dist(rows[i], query), i))
        self.assertEqual(list(struct.unpack_from("<100i", data, 8)),
                         order[:100])


if __name__ == "__main__":
    if "--groundtruth" in sys.argv:
        at = sys.argv.index("--groundtruth")
        GROUNDTRUTH = os.path.abspath(sys.argv[at + 1])
        del sys.argv[at:at + 2]
    unittest.main()
