#!/usr/bin/env python3
"""Fetches public data sets: sift1m, deep10m, glove100.

Downloads resume where they broke off, also in a later run. Files appear
under their names only when complete and checked. Exit code 2 and a message
when something cannot be had; without a network the message says which bytes
to put where.
"""

import argparse
import fcntl
import glob
import hashlib
import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ANN_BENCHMARKS = "https://ann-benchmarks.com/"
YANDEX = "https://storage.yandexcloud.net/yandex-research/ann-datasets/DEEP/"
DEEP_DIM = 96
DEEP_ROWS = 10_000_000
DEEP_QUERIES = 10_000
DEEP_K = 100
CHUNK = 1 << 20


class Failure(Exception):
    """What ends the program with exit code 2."""


class NoNetwork(Failure):
    """Nothing could be reached."""


class File:
    """One file to fetch: `size` bytes from the beginning of what is at
    url + remote. sha256 is None where no publisher's checksum is known;
    then the size and the structure are what is checked."""

    def __init__(self, url, remote, local, size, check, whole=True,
                 sha256=None):
        self.url = url
        self.remote = remote
        self.local = local
        self.size = size
        self.check = check  # check(path): raises Failure, may fix a header
        self.whole = whole  # False: the remote file is longer
        self.sha256 = sha256


# ---------------------------------------------------------------- structure

def check_hdf5(path):
    """The HDF5 superblock must be there and its end-of-file address inside
    the file (format specification, section II.A)."""
    size = os.path.getsize(path)
    with open(path, "rb") as f:
        head = f.read(96)
    if head[:8] != b"\x89HDF\r\n\x1a\n" or len(head) < 96:
        raise Failure(f"{path}: not an HDF5 file")
    version = head[8]
    if version in (0, 1):
        offset_bytes, at = head[13], 24 if version == 0 else 28
    elif version in (2, 3):
        offset_bytes, at = head[9], 12
    else:
        raise Failure(f"{path}: unknown HDF5 superblock version {version}")
    if offset_bytes not in (4, 8):
        raise Failure(f"{path}: HDF5 offsets of {offset_bytes} bytes")
    at += 2 * offset_bytes  # base address, free space or extension
    end = int.from_bytes(head[at:at + offset_bytes], "little")
    if end > size:
        raise Failure(f"{path}: HDF5 file of {end} bytes cut to {size}")


def check_fbin(rows, dim):
    """Makes the check of an .fbin that must have this shape. A header that
    counts more rows than the file was cut to is put right."""

    def check(path):
        with open(path, "rb") as f:
            n, d = struct.unpack("<II", f.read(8))
            if d != dim or n < rows:
                raise Failure(f"{path}: header says {n} rows of dimension "
                              f"{d}, expected at least {rows} of {dim}")
            for row in (0, rows - 1):
                f.seek(8 + 4 * dim * row)
                values = struct.unpack(f"<{dim}f", f.read(4 * dim))
                if not all(abs(v) < 1e30 for v in values):  # catches NaN
                    raise Failure(f"{path}: row {row} is not made of numbers")
        if n != rows:
            with open(path, "r+b") as f:
                f.write(struct.pack("<I", rows))
    return check


# ------------------------------------------------------------------ the sets

def short_count(n):
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if n % unit == 0:
            return f"{n // unit}{letter}"
    return str(n)


def files_of(name, rows):
    if name == "sift1m":
        return [File(ANN_BENCHMARKS, "sift-128-euclidean.hdf5",
                     "sift-128-euclidean.hdf5", 525_128_288, check_hdf5)]
    if name == "glove100":
        return [File(ANN_BENCHMARKS, "glove-100-angular.hdf5",
                     "glove-100-angular.hdf5", 485_413_888, check_hdf5)]
    count = short_count(rows)
    folder = "deep" + count.lower()
    row_bytes = 4 * DEEP_DIM
    return [
        File(YANDEX, "query.public.10K.fbin",
             f"{folder}/query.public.10K.fbin",
             8 + DEEP_QUERIES * row_bytes,
             check_fbin(DEEP_QUERIES, DEEP_DIM)),
        File(YANDEX, "base.1B.fbin", f"{folder}/base.{count}.fbin",
             8 + rows * row_bytes, check_fbin(rows, DEEP_DIM), whole=False),
    ]


# ------------------------------------------------------------------ progress

class Progress:
    """A bar on a terminal; elsewhere a line every ten seconds."""

    def __init__(self, label, done, total):
        self.label, self.total, self.first = label, total, done
        self.terminal = sys.stderr.isatty()
        self.start = self.last = time.monotonic()

    def update(self, done):
        now = time.monotonic()
        if now - self.last < (0.2 if self.terminal else 10):
            return
        self.last = now
        speed = (done - self.first) / (now - self.start)
        left = (self.total - done) / speed if speed > 0 else 0
        text = (f"{self.label}: {done / 1e6:.1f} of {self.total / 1e6:.1f} "
                f"MB, {speed / 1e6:.1f} MB/s, {left:.0f} s left")
        if self.terminal:
            text = f"\r{text}\033[K"
        print(text, end="" if self.terminal else "\n", file=sys.stderr,
              flush=True)

    def finish(self):
        if self.terminal and self.last != self.start:
            print(file=sys.stderr)


# ------------------------------------------------------------------ download

def request_range(url, start, stop, validator):
    headers = {
        # ann-benchmarks.com turns Python's own name away.
        "User-Agent": "faiss_flash-fetch",
        "Accept-Encoding": "identity",
        "Range": f"bytes={start}-{stop - 1}",
    }
    if start > 0 and validator:
        headers["If-Range"] = validator
    return urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=30)


def remote_size(response):
    """Size of the whole remote file, None if the server does not say."""
    if response.status == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def transfer(file, url, part, out):
    """One attempt: appends to `out`, open on `part`, until file.size."""
    note = part + ".json"  # which version of the remote file `part` is from
    have = out.seek(0, os.SEEK_END)
    validator = None
    if have and os.path.exists(note):
        with open(note) as f:
            validator = json.load(f).get("validator")
    with request_range(url, have, file.size, validator) as response:
        total = remote_size(response)
        if total is not None and (
                total != file.size if file.whole else total < file.size):
            raise Failure(f"{url}: has {total} bytes, expected "
                          f"{'' if file.whole else 'at least '}{file.size}")
        if response.status == 206:
            start = response.headers.get("Content-Range", "")
            start = start.removeprefix("bytes ").partition("-")[0]
            if start != str(have):
                raise Failure(f"{url}: asked for bytes from {have}, got "
                              f"'{response.headers.get('Content-Range')}'")
        elif have:
            # Another version of the file, or a server without ranges.
            print(f"{file.local}: starting again", file=sys.stderr)
            out.truncate(0)
            have = out.seek(0)
        tag = response.headers.get("ETag", "")
        if tag.startswith("W/"):  # weak tags are not for ranges
            tag = ""
        with open(note, "w") as f:
            json.dump({"validator":
                       tag or response.headers.get("Last-Modified")}, f)
        progress = Progress(file.local, have, file.size)
        try:
            while have < file.size:
                data = response.read(min(CHUNK, file.size - have))
                if not data:
                    raise ConnectionError(
                        f"connection closed at byte {have} of {file.size}")
                out.write(data)
                have += len(data)
                progress.update(have)
        finally:
            out.flush()
            progress.finish()


def download(file, url, part, retries, wait):
    os.makedirs(os.path.dirname(part), exist_ok=True)
    reached = False
    failures = 0
    with open(part, "ab") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Failure(f"{part}: another fetch.py is writing it") from None
        while True:
            before = out.seek(0, os.SEEK_END)
            if before > file.size:
                out.truncate(0)
                before = 0
            if before == file.size:
                break
            free = shutil.disk_usage(os.path.dirname(part)).free
            if free < file.size - before:
                raise Failure(f"{os.path.dirname(part)}: {free} bytes free, "
                              f"{file.size - before} needed")
            try:
                transfer(file, url, part, out)
                continue
            except urllib.error.HTTPError as error:
                reached = True
                if error.code < 500 and error.code not in (408, 429):
                    raise Failure(f"{url}: HTTP {error.code} "
                                  f"{error.reason}") from None
                reason = f"HTTP {error.code}"
            except (urllib.error.URLError, http.client.HTTPException,
                    socket.timeout, ConnectionError) as error:
                reason = str(getattr(error, "reason", error))
            if out.seek(0, os.SEEK_END) > before:
                reached, failures = True, 0  # it moves: keep at it
            failures += 1
            # A host that was never reached: hardly worth the full patience.
            if failures > (retries if reached else min(retries, 1)):
                kind = Failure if reached else NoNetwork
                if out.tell() == 0:
                    os.remove(part)
                raise kind(f"{url}: {reason}")
            print(f"{file.local}: {reason}; trying again", file=sys.stderr)
            time.sleep(min(wait * 2 ** (failures - 1), 60))


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while data := f.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()


def verify(file, path):
    """Size, structure and, where known, checksum; raises Failure."""
    size = os.path.getsize(path)
    if size != file.size:
        raise Failure(f"{path}: {size} bytes, expected {file.size}")
    file.check(path)
    digest = sha256_of(path)
    if file.sha256 and digest != file.sha256:
        raise Failure(f"{path}: SHA-256 {digest}, expected {file.sha256}")
    return digest


def fetch(file, args):
    path = os.path.join(args.out, file.local)
    part = path + ".part"
    url = (args.base_url or file.url) + file.remote
    if os.path.exists(path):
        digest = verify(file, path)
        print(f"{path}: already there, SHA-256 {digest}")
        return
    download(file, url, part, args.retries, args.retry_wait)
    try:
        digest = verify(file, part)
    except Failure as error:
        os.remove(part)  # complete and wrong: resuming would not help
        raise Failure(f"{error}; removed, run again to fetch it anew") from None
    with open(part, "rb") as f:
        os.fsync(f.fileno())
    os.replace(part, path)
    if os.path.exists(part + ".json"):
        os.remove(part + ".json")
    known = "as published" if file.sha256 else \
        "no published checksum: size and structure checked"
    print(f"{path}: {file.size} bytes, SHA-256 {digest} ({known})")


# -------------------------------------------------------------- ground truth

def find_program(given):
    if given:
        return given
    root = os.path.dirname(HERE)
    built = glob.glob(os.path.join(
        root, "build", "*", "datasets", "flash_groundtruth"))
    release = [p for p in built if os.sep + "release" + os.sep in p]
    for candidate in release + sorted(built):
        if os.access(candidate, os.X_OK):
            return candidate
    return shutil.which("flash_groundtruth")


def make_ground_truth(files, rows, args):
    queries, base = (os.path.join(args.out, f.local) for f in files)
    out = os.path.join(os.path.dirname(base),
                       f"groundtruth.{short_count(rows)}.ibin")
    k = min(DEEP_K, rows)
    if os.path.exists(out):
        with open(out, "rb") as f:
            shape = struct.unpack("<II", f.read(8).ljust(8, b"\0"))
        if shape != (DEEP_QUERIES, k) or \
                os.path.getsize(out) != 8 + 4 * DEEP_QUERIES * k:
            raise Failure(f"{out}: not {k} ids for {DEEP_QUERIES} queries; "
                          f"remove it and run again")
        print(f"{out}: already there")
        return
    arguments = ["--base", base, "--queries", queries, "--metric", "l2",
                 "--k", str(k), "--out", out]
    program = find_program(args.groundtruth)
    if not program:
        raise Failure("the vectors are there; the ground truth needs "
                      "flash_groundtruth: build the project, then run again, "
                      "or: flash_groundtruth " + " ".join(arguments))
    try:
        code = subprocess.run([program] + arguments, check=False).returncode
    except OSError as error:
        raise Failure(f"{program}: {error.strerror}") from None
    if code:
        raise Failure(f"{program} ended with exit code {code}")


# ----------------------------------------------------------------------- main

def what_to_put_where(files, args):
    lines = ["To do without a network here, put these files in place (fetched "
             "elsewhere, by this script or by hand) and run again:"]
    for file in files:
        path = os.path.join(args.out, file.local)
        if os.path.exists(path):
            continue
        url = (args.base_url or file.url) + file.remote
        if file.whole:
            lines.append(f"  {path}\n    {file.size} bytes, {url}")
        else:
            lines.append(f"  {path}.part\n    the first {file.size} bytes of "
                         f"{url}\n    curl -r 0-{file.size - 1} -o "
                         f"{path}.part {url}")
    return "\n".join(lines)


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description="Fetches a public data set.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""\
sift1m    525 MB  sift-128-euclidean.hdf5: 1 000 000 x 128, 10 000 queries
glove100  485 MB  glove-100-angular.hdf5: 1 183 514 x 100, 10 000 queries
deep10m   3.8 GB  the first 10 000 000 x 96 of Deep1B and its 10 000 public
                  queries; ground truth made here by flash_groundtruth""")
    parser.add_argument("set", choices=["sift1m", "deep10m", "glove100"])
    parser.add_argument("--out", default=os.path.join(HERE, "data"),
                        help="folder to put it in (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=DEEP_ROWS,
                        help="deep10m: take this many rows instead")
    parser.add_argument("--base-url",
                        help="fetch from a mirror: the folder's URL")
    parser.add_argument("--groundtruth", metavar="PROGRAM",
                        help="deep10m: where flash_groundtruth is")
    parser.add_argument("--retries", type=int, default=5,
                        help="attempts that get nothing before giving up "
                             "(default: %(default)s)")
    parser.add_argument("--retry-wait", type=float, default=1.0,
                        help="seconds before the first retry, doubled each "
                             "time (default: %(default)s)")
    args = parser.parse_args(argv)
    if not 1 <= args.rows <= 10**9:
        parser.error(f"--rows is {args.rows}, must be between 1 and 10^9")
    if args.retries < 0 or args.retry_wait < 0:
        parser.error("--retries and --retry-wait must not be negative")
    if args.base_url and not args.base_url.endswith("/"):
        args.base_url += "/"
    return args


def main(argv=None):
    args = parse_arguments(argv)
    files = files_of(args.set, args.rows)
    try:
        for file in files:
            fetch(file, args)
        if args.set == "deep10m":
            make_ground_truth(files, args.rows, args)
    except NoNetwork as error:
        print(f"fetch.py: cannot reach {error}", file=sys.stderr)
        print(what_to_put_where(files, args), file=sys.stderr)
        return 2
    except (Failure, OSError) as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nfetch.py: interrupted; run again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
