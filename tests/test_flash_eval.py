#!/usr/bin/env python3
"""flash_eval from outside: files it writes, what it refuses, what is left
after an interrupt.

usage: test_flash_eval.py --program FLASH_EVAL --dataset FILE [unittest args]
"""

import csv
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = DATASET = None

COLUMNS = ("dataset,n,d,metric,nlist,trainer,policy,params,codec,copies,"
           "bytes_per_vector,nprobe,recall_at_10,dco_raw,dco_unique,"
           "dco_coarse,train_s,add_s,search_s,qps,threads,engine,seed,"
           "faiss_version,commit").split(",")
KEYS = {"dataset", "method", "codec", "nlist", "recall", "dco_raw",
        "dco_unique", "dco_coarse", "factor_raw", "factor_unique", "copies",
        "qps", "factor_raw_std", "factor_unique_std", "factor_total_raw",
        "factor_total_unique", "recall_at_equal_dco"}
SMALL = ["--rows", "2000", "--queries", "50", "--nlist", "32",
         "--em-niter", "10"]


def command(out, *arguments):
    return [PROGRAM, "--dataset", DATASET, "--out", str(out), *arguments]


def run(out, *arguments):
    return subprocess.run(command(out, *arguments), capture_output=True,
                          text=True, timeout=250)


def read(out):
    with open(out / "curves.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class FlashEval(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name) / "made" / "on demand"

    def test_files(self):
        result = run(self.out, *SMALL, "--seeds", "2", "--threads", "2",
                     "--methods", "faiss,kmeans+nearest,gmm+air",
                     "--codec", "flat,pq8+rerank,sq8", "--nprobe", "1,4,16")
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = read(self.out)
        self.assertEqual(list(rows[0]), COLUMNS)
        self.assertEqual(len(rows), 2 * 3 * 3 * 3)
        for row in rows:
            self.assertEqual((row["n"], row["d"], row["nlist"]),
                             ("2000", "128", "32"))
            self.assertEqual(row["dco_coarse"], "32")
            self.assertEqual(row["threads"], "2")
            self.assertTrue(0 <= float(row["recall_at_10"]) <= 1)
            self.assertLessEqual(float(row["dco_unique"]),
                                 float(row["dco_raw"]))
            self.assertGreater(float(row["qps"]), 0)
            stock = row["trainer"] == "faiss"
            self.assertEqual(row["engine"] == "faiss", stock)
            if row["policy"] == "nearest":
                self.assertEqual(float(row["copies"]), 1)
                self.assertEqual(row["dco_unique"], row["dco_raw"])
            else:
                self.assertGreater(float(row["copies"]), 1)
        self.assertEqual({row["seed"] for row in rows}, {"1234", "1235"})

        summary = json.loads((self.out / "summary.json").read_text())
        self.assertEqual(len(summary), 3 * 3 * 5)
        for entry in summary:
            self.assertLessEqual(KEYS, set(entry))
            if entry["method"] == "faiss" and entry["dco_raw"]:
                self.assertAlmostEqual(entry["factor_raw"], 1)
        reached = [e for e in summary if e["method"] == "gmm+air"
                   and e["codec"] == "flat" and e["factor_raw"]]
        self.assertTrue(reached)
        for entry in reached:
            self.assertIsNotNone(entry["factor_raw_std"])
        info = json.loads((self.out / "run.json").read_text())
        self.assertTrue(info["complete"])
        self.assertIn("--seeds 2", info["command"])
        self.assertIn("gmm+air", result.stdout)

    def test_k_means_and_stock_faiss_agree(self):
        """Same centroids up to rounding: the same work, nearly."""
        run(self.out, *SMALL, "--methods", "faiss,kmeans+nearest",
            "--nprobe", "4")
        stock, ours = read(self.out)
        self.assertAlmostEqual(float(stock["dco_raw"]),
                               float(ours["dco_raw"]),
                               delta=0.02 * float(stock["dco_raw"]))
        self.assertAlmostEqual(float(stock["recall_at_10"]),
                               float(ours["recall_at_10"]), delta=0.02)

    def test_append_and_replace(self):
        small = SMALL + ["--nprobe", "1,2"]
        run(self.out, *small, "--methods", "faiss")
        run(self.out, *small, "--methods", "kmeans+air", "--append")
        self.assertEqual([row["trainer"] for row in read(self.out)],
                         ["faiss", "faiss", "kmeans", "kmeans"])
        summary = json.loads((self.out / "summary.json").read_text())
        self.assertEqual({e["method"] for e in summary},
                         {"faiss", "kmeans+air"})
        run(self.out, *small, "--methods", "faiss")
        self.assertEqual(len(read(self.out)), 2)
        self.assertTrue((self.out / "curves.previous.csv").exists())

    def refused(self, *arguments, out=None):
        result = run(out or self.out, *arguments)
        self.assertEqual(result.returncode, 2, arguments)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertTrue(result.stderr.startswith("flash_eval: "))
        return result.stderr

    def test_refused(self):
        small = SMALL[:4]
        for arguments, words in (
                (["--methods", "gmm+aire"], "gmm+aire"),
                (["--codec", "pq7"], "multiple of 7"),
                (["--codec", "lz4"], "lz4"),
                (["--nlist", "0"], "nlist"),
                (["--nlist", "-3"], "nlist"),
                (["--nlist", "2001"], "2001"),
                (["--nlist", "16", "--nprobe", "17"], "17"),
                (["--nprobe", "0"], "nprobe"),
                (["--k", "5"], "--k"),
                (["--k", "2001"], "2001"),
                (["--seeds", "0"], "seeds"),
                (["--threads", "none"], "threads"),
                (["--tau", "1.5"], "tau"),
                (["--tau", "0"], "tau"),
                (["--lambda", "-1"], "lambda"),
                (["--lambda", "nan"], "lambda"),
                (["--max-lists", "33", "--nlist", "32", "--methods",
                  "gmm+top_m"], "max_lists"),
                (["--metric", "ip"], "angular"),
                (["--metric", "cosine"], "metric"),
                (["--engine", "abacus"], "abacus"),
                (["--rows", "99999999"], "99999999"),
                (["--queries", "99999999"], "99999999"),
                (["--surprise"], "surprise"),
                (["--preset", "sample", "--quick"], "quick")):
            own = {a for a in arguments if a.startswith("--")}
            rest = [] if own & {"--rows", "--queries"} else small
            self.assertIn(words, self.refused(*rest, *arguments))
        self.assertFalse(self.out.exists(), "made before it was needed")

    def test_refused_files(self):
        result = subprocess.run(
            [PROGRAM, "--dataset", "nowhere.hdf5", "--out", str(self.out)],
            capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 2)
        self.assertEqual(result.stderr.count("\n"), 1)
        self.assertIn("nowhere.hdf5", result.stderr)
        self.assertEqual(subprocess.run(
            [PROGRAM], capture_output=True, timeout=60).returncode, 2)
        self.refused(*SMALL, out=__file__)
        self.out.mkdir(parents=True)
        (self.out / "curves.csv").write_text("not,ours\n1,2\n")
        self.refused(*SMALL, "--append")
        self.assertEqual((self.out / "curves.csv").read_text(),
                         "not,ours\n1,2\n")

    def test_help(self):
        result = subprocess.run([PROGRAM, "--help"], capture_output=True,
                                text=True, timeout=60)
        self.assertEqual(result.returncode, 0)
        for option in ("--dataset", "--nlist", "--methods", "--nprobe",
                       "--codec", "--seeds", "--engine", "--threads",
                       "--out", "--preset"):
            self.assertIn(option, result.stdout)

    def start_endless(self):
        """A run far longer than the test, once it has some rows."""
        process = subprocess.Popen(
            command(self.out, *SMALL, "--seeds", "1000", "--methods",
                    "faiss,gmm+air"),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        file = self.out / "curves.csv"
        end = time.time() + 120
        while not file.exists() or file.read_bytes().count(b"\n") < 25:
            self.assertLess(time.time(), end, "no rows after two minutes")
            self.assertIsNone(process.poll())
            time.sleep(0.02)
        return process

    def test_interrupt(self):
        process = self.start_endless()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 130)
        self.assertIn("interrupted", errors)
        rows = read(self.out)
        self.assertGreaterEqual(len(rows), 24)
        self.assertEqual({len(row) for row in rows}, {len(COLUMNS)})
        summary = json.loads((self.out / "summary.json").read_text())
        self.assertIn("faiss", {entry["method"] for entry in summary})
        info = json.loads((self.out / "run.json").read_text())
        self.assertFalse(info["complete"])

    def test_killed(self):
        process = self.start_endless()
        process.kill()
        process.wait()
        kept = len(read(self.out))
        self.assertGreaterEqual(kept, 24)
        result = run(self.out, *SMALL, "--append", "--methods",
                     "gmm+nearest", "--nprobe", "1")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(len(read(self.out)), (kept, kept + 1))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    PROGRAM = arguments[arguments.index("--program") + 1]
    DATASET = arguments[arguments.index("--dataset") + 1]
    unittest.main(argv=[sys.argv[0]] + arguments[4:])
