# SPDX-License-Identifier: Apache-2.0
"""The benchmark behind scripts/bench, which starts the server and sets the environment.

Contenders take turns, in another order every round; each cell is one cold mount with an empty cache,
after the kernel's caches were dropped. CPU is user + system time of the mount's daemon (for curl and
boto3: of the process), peak memory its VmHWM. A write counts as done when close has returned and the
server shows the whole object. What was read and written is compared by SHA-256 outside of the time."""
import argparse
import concurrent.futures
import datetime
import hashlib
import hmac
import http.client
import json
import os
import platform
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.parse

MIB = 1 << 20
PIECE = 16 * MIB
TMP, SHM = os.environ.get("BENCH_TMP", ""), os.environ.get("BENCH_SHM", "")
PEERS = ("s3fs", "rclone")
SMALL = 4096  # bytes of a small file
SMALL_PARALLEL = "32"
MEMORY = 256 * MIB  # the option's default; what stands in MLOPSFS_OPTIONS wins
MEMORY_OVER = 50 * MIB  # code, stacks, and what is no cache


class Store:
    """What the benchmark itself asks of the server."""

    def __init__(self):
        self.endpoint = urllib.parse.urlsplit(os.environ["S3_ENDPOINT"])
        self.access, self.secret = os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"]
        self.bucket = os.environ["S3_BUCKET"]

    def presign(self, method, key, more=()):
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = "%s/us-east-1/s3/aws4_request" % now[:8]
        path = "/%s/%s" % (self.bucket, urllib.parse.quote(key))
        query = urllib.parse.urlencode(
            [
                ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
                ("X-Amz-Credential", self.access + "/" + scope),
                ("X-Amz-Date", now),
                ("X-Amz-Expires", "3600"),
                ("X-Amz-SignedHeaders", "host"),
                *sorted(more),
            ]
        )
        text = "\n".join([method, path, query, "host:" + self.endpoint.netloc, "", "host", "UNSIGNED-PAYLOAD"])
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(text.encode()).hexdigest()])
        k = ("AWS4" + self.secret).encode()
        for part in (now[:8], "us-east-1", "s3", "aws4_request"):
            k = hmac.digest(k, part.encode(), "sha256")
        sig = hmac.new(k, text.encode(), "sha256").hexdigest()
        return "%s?%s&X-Amz-Signature=%s" % (path, query, sig)

    def url(self, method, key):
        return "%s://%s%s" % (self.endpoint.scheme, self.endpoint.netloc, self.presign(method, key))

    def request(self, method, key, body=None, headers=None, more=()):
        c = http.client.HTTPConnection(self.endpoint.netloc, timeout=300)
        c.request(method, self.presign(method, key, more), body=body, headers=headers or {})
        return c, c.getresponse()

    def put(self, key, path):
        with open(path, "rb") as f:
            c, r = self.request("PUT", key, f, {"Content-Length": str(os.path.getsize(path))})
            r.read()
            c.close()
            if r.status != 200:
                sys.exit("bench: cannot put %s: %d" % (key, r.status))

    def size(self, key):
        c, r = self.request("HEAD", key)
        r.read()
        c.close()
        return int(r.headers["Content-Length"]) if r.status == 200 else None

    def sha(self, key):
        h = hashlib.sha256()
        c, r = self.request("GET", key)
        while data := r.read(4 * MIB):
            h.update(data)
        c.close()
        return h.hexdigest()

    def small(self, prefix):
        """The keys below prefix that have the size of a small file."""
        keys, after = [], ""
        while True:
            c, r = self.request("GET", "", more=[("list-type", "2"), ("prefix", prefix), ("start-after", after)])
            page = r.read().decode()
            c.close()
            found = re.findall(r"<Key>([^<]*)</Key>.*?<Size>(\d+)</Size>", page, re.S)
            keys += [k for k, size in found if int(size) == SMALL]
            if "<IsTruncated>true" not in page:
                return keys
            after = found[-1][0]

    def delete(self, key):
        c, r = self.request("DELETE", key)
        r.read()
        c.close()


def breath(seconds=0.01):
    select.select([], [], [], seconds)


def file_sha(path):
    h = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        while data := f.read(4 * MIB):
            h.update(data)
    return h.hexdigest()


TOUCH = """
import mmap, sys
with mmap.mmap(-1, int(sys.argv[1])) as m:
    for at in range(0, len(m), mmap.PAGESIZE):
        m[at] = 1
"""


def touch_memory(size):
    """A virtual machine's host may take back memory that is free for seconds; touching a page again costs it ten times
    as much as a page that is there. Touched beforehand, as many as a cell may need, it costs no contender anything."""
    with open("/proc/meminfo") as f:
        available = next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable"))
    size = min(available // 2, 4 * size + (1 << 30))
    subprocess.run([sys.executable, "-c", TOUCH, str(size)], check=True)


def drop_caches():
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3")
    except OSError:
        pass


# ---- mounts ----


class Mount:
    name = ""

    def __init__(self, store):
        self.store = store
        self.mnt, self.cache = TMP + "/mnt-" + self.name, TMP + "/cache-" + self.name
        self.process = None

    def up(self):
        shutil.rmtree(self.cache, ignore_errors=True)
        os.makedirs(self.mnt, exist_ok=True)
        os.makedirs(self.cache)
        self.log = open("%s/%s.log" % (TMP, self.name), "ab")
        argv, env = self.command()
        self.process = subprocess.Popen(argv, env={**os.environ, **env}, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        try:
            while not self.is_mounted():
                if self.process.poll() is not None:
                    raise RuntimeError("%s does not mount: %s" % (self.name, open(self.log.name, errors="replace").read()[-500:]))
                breath()
            os.listdir(self.mnt)
        except BaseException:
            self.down()
            raise
        drop_caches()

    def is_mounted(self):
        with open("/proc/self/mounts") as f:
            return any(line.split()[1] == self.mnt for line in f)

    def cpu(self):
        with open("/proc/%d/stat" % self.process.pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return sum(int(x) for x in fields[11:15]) / os.sysconf("SC_CLK_TCK")

    def peak(self):
        with open("/proc/%d/status" % self.process.pid) as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))

    def down(self):
        if self.process is None:
            return
        for _ in range(500):
            if not self.is_mounted():
                break
            if subprocess.run(["fusermount3", "-u", self.mnt], stderr=subprocess.DEVNULL).returncode:
                breath(0.1)
        else:
            subprocess.run(["fusermount3", "-u", "-z", self.mnt])
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        shutil.rmtree(self.cache, ignore_errors=True)

    # One cell each: (seconds, CPU seconds, peak bytes, right).
    def read(self, key, size, sha):
        self.up()
        try:
            path, cpu = "%s/%s" % (self.mnt, key), self.cpu()
            t = time.monotonic()
            subprocess.run(["dd", "if=" + path, "of=/dev/null", "bs=1M", "status=none"], check=True)
            t = time.monotonic() - t
            cell = (t, self.cpu() - cpu, self.peak())
            return (*cell, file_sha(path) == sha)
        finally:
            self.down()

    def write(self, source, key, size, sha):
        self.up()
        try:
            cpu = self.cpu()
            t = time.monotonic()
            subprocess.run(["dd", "if=" + source, "of=%s/%s" % (self.mnt, key), "bs=1M", "status=none"], check=True)
            closed = time.monotonic()
            while self.store.size(key) != size:
                if time.monotonic() - closed > 300:
                    raise RuntimeError("%s: the object does not come" % self.name)
                breath()
            t = time.monotonic() - t
            cell = (t, self.cpu() - cpu, self.peak())
        finally:
            self.down()
        right = self.store.sha(key) == sha
        self.store.delete(key)
        return (*cell, right)


    def settle(self):
        """Asks the mount to bring all into the bucket, where it can be asked."""

    def small(self, source, prefix, count, sha):
        self.up()
        try:
            cpu = self.cpu()
            t = time.monotonic()
            subprocess.run(["cp", "-r", source, "%s/%s" % (self.mnt, prefix)], check=True)
            returned = time.monotonic() - t
            self.settle()
            while len(self.store.small(prefix + "/")) < count:
                if time.monotonic() - t > 600:
                    raise RuntimeError("%s: the objects do not come" % self.name)
                breath(0.05)
            t = time.monotonic() - t
            cell = (t, self.cpu() - cpu, self.peak())
        finally:
            self.down()
        return (*cell, small_right(self.store, prefix, sha), returned)


class Mlopsfs(Mount):
    name = "mlopsfs"

    def settle(self):
        subprocess.run([os.environ["MLOPSFS_BIN"], "sync", self.mnt], check=True, stdout=subprocess.DEVNULL)

    def command(self):
        options = "cache_dir=" + self.cache
        if extra := os.environ.get("MLOPSFS_OPTIONS"):
            options += "," + extra
        return [os.environ["MLOPSFS_BIN"], "mount", "-f", "-o", options, "s3://" + self.store.bucket, self.mnt], {}

    @staticmethod
    def there():
        return os.access(os.environ["MLOPSFS_BIN"], os.X_OK)


class S3fs(Mount):
    name = "s3fs"

    def command(self):
        options = "url=%s,use_path_request_style,tmpdir=%s" % (os.environ["S3_ENDPOINT"], self.cache)
        if extra := os.environ.get("S3FS_OPTIONS"):
            options += "," + extra
        env = {"AWSACCESSKEYID": self.store.access, "AWSSECRETACCESSKEY": self.store.secret}
        return ["s3fs", "-f", "-o", options, self.store.bucket, self.mnt], env

    @staticmethod
    def there():
        return shutil.which("s3fs")


class Rclone(Mount):
    name = "rclone"

    def command(self):
        program = os.environ.get("RCLONE", "rclone")
        argv = [program, "mount", "bench:" + self.store.bucket, self.mnt, "--cache-dir", self.cache]
        argv += ["--vfs-cache-mode", "full", "--vfs-write-back", "0s"]
        flags = subprocess.run([program, "help", "flags"], capture_output=True, text=True).stdout
        if "--vfs-read-chunk-streams" in flags:
            argv += ["--vfs-read-chunk-streams", "8", "--vfs-read-chunk-size", "16M"]
        env = {
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_CONFIG_BENCH_TYPE": "s3",
            "RCLONE_CONFIG_BENCH_PROVIDER": "Minio",
            "RCLONE_CONFIG_BENCH_ENDPOINT": os.environ["S3_ENDPOINT"],
            "RCLONE_CONFIG_BENCH_ACCESS_KEY_ID": self.store.access,
            "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY": self.store.secret,
        }
        return argv, env

    @staticmethod
    def there():
        return shutil.which(os.environ.get("RCLONE", "rclone"))


# ---- the limits ----


def run_measured(argv, stdin=None, env=None):
    """(seconds, CPU seconds, peak bytes, what it printed) of a process."""
    t = time.monotonic()
    p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **(env or {})})
    if stdin:
        p.stdin.write(stdin.encode())
    p.stdin.close()
    out = p.stdout.read().decode()
    _, status, usage = os.wait4(p.pid, 0)
    t = time.monotonic() - t
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode:
        raise RuntimeError("%s returned %d" % (argv[0], p.returncode))
    return t, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, out


def small_right(store, prefix, sha):
    """Whether the small files are there, by count and by the bytes of one; removes them."""
    keys = store.small(prefix + "/")
    right = len(keys) == sha["count"] and all(store.sha(prefix + "/" + f) == s for f, s in sha["some"].items())
    with concurrent.futures.ThreadPoolExecutor(int(SMALL_PARALLEL)) as pool:
        list(pool.map(store.delete, [*keys, prefix + "/"]))
    return right


class Curl:
    """Eight transfers at once, of 16 MiB each; of small files 32 at once, over connections that stay."""

    name = "curl"

    def __init__(self, store):
        self.store = store

    def curl(self, blocks, parallel="8"):
        config = "next\n".join("".join('%s = "%s"\n' % o for o in b) for b in blocks)
        return run_measured(["curl", "-q", "-sS", "--no-progress-meter", "-f", "-Z", "--parallel-max", parallel, "-K", "-"], config)

    def small(self, source, prefix, count, sha):
        blocks = [
            [
                ("url", self.store.url("PUT", "%s/%s" % (prefix, f))),
                ("upload-file", "%s/%s" % (source, f)),
                ("header", "Expect:"),
                ("output", "/dev/null"),
            ]
            for f in sorted(os.listdir(source))
        ]
        cell = self.curl(blocks, SMALL_PARALLEL)[:3]
        return (*cell, small_right(self.store, prefix, sha), cell[0])

    def read(self, key, size, sha):
        url = self.store.url("GET", key)
        blocks = []
        for at in range(0, size, PIECE):
            blocks.append([("url", url), ("range", "%d-%d" % (at, min(size, at + PIECE) - 1)), ("output", "/dev/null")])
        return (*self.curl(blocks)[:3], True)

    def write(self, source, key, size, sha):
        pieces = []
        with open(source, "rb") as f:
            for i in range(0, size, PIECE):
                path = "%s/piece%d" % (SHM, i // PIECE)
                with open(path, "wb") as out:
                    out.write(f.read(PIECE))
                pieces.append(path)
        blocks = [
            [("url", self.store.url("PUT", "%s.%d" % (key, i))), ("upload-file", path), ("header", "Expect:"), ("output", "/dev/null")]
            for i, path in enumerate(pieces)
        ]
        cell = self.curl(blocks)[:3]
        right = True
        for i, path in enumerate(pieces):
            right = right and self.store.size("%s.%d" % (key, i)) == os.path.getsize(path)
            self.store.delete("%s.%d" % (key, i))
            os.unlink(path)
        return (*cell, right)

    @staticmethod
    def there():
        return shutil.which("curl")


BOTO3 = """
import boto3, os, sys, time
from boto3.s3.transfer import TransferConfig
c = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"], aws_access_key_id=os.environ["S3_ACCESS_KEY"],
                 aws_secret_access_key=os.environ["S3_SECRET_KEY"], region_name="us-east-1")
t = time.monotonic()
c.upload_file(sys.argv[1], os.environ["S3_BUCKET"], sys.argv[2])
print(time.monotonic() - t)
"""


class Boto3:
    """boto3's TransferManager, as it comes; its time without the start of Python."""

    name = "boto3"

    def __init__(self, store):
        self.store = store

    def write(self, source, key, size, sha):
        _, cpu, peak, out = run_measured([os.environ["BENCH_PYTHON"], "-c", BOTO3, source, key])
        right = self.store.sha(key) == sha
        self.store.delete(key)
        return float(out), cpu, peak, right

    @staticmethod
    def there():
        return subprocess.run([os.environ["BENCH_PYTHON"], "-c", "import boto3"], stderr=subprocess.DEVNULL).returncode == 0


# ---- the run ----


def parse_size(text):
    units = {"K": 10, "M": 20, "G": 30}
    return int(text[:-1]) << units[text[-1]] if text[-1] in units else int(text)


def arguments():
    p = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", metavar="FILE", help="also write every cell to FILE")
    p.add_argument("--size", type=parse_size, default=parse_size(os.environ.get("SIZE", "1G")), help="of the file (1G)")
    p.add_argument("--rounds", type=int, default=int(os.environ.get("N", "3")), help="of which the median counts (3; or N=)")
    p.add_argument("--only", help="contenders, separated by commas: mlopsfs, s3fs, rclone, curl, boto3")
    p.add_argument("--work", default="read,write", help="of read,write,small (read,write)")
    p.add_argument("--count", type=int, default=1000, help="small files (1000)")
    p.add_argument("--bandwidth", metavar="MB/s", help="of each connection, by the same proxy")
    p.add_argument("--latency", metavar="MS", help="of each reply, by a proxy between all and the server")
    p.add_argument("--check", action="store_true", help="fail unless mlopsfs is 1.2 times as fast as the better of s3fs and rclone, with less CPU, and keeps to its memory")
    return p.parse_args()


def make_source(path, size):
    """Bytes that neither compress nor repeat."""
    with open(path, "wb") as out:
        p = subprocess.Popen(
            ["openssl", "enc", "-aes-128-ctr", "-nosalt", "-K", os.urandom(16).hex(), "-iv", "0"],
            stdin=open("/dev/zero", "rb"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        left = size
        while left:
            data = p.stdout.read(min(left, 4 * MIB))
            out.write(data)
            left -= len(data)
        p.kill()
        p.wait()


def make_small(dir, count):
    os.makedirs(dir)
    for n in range(count):
        with open("%s/f%06d" % (dir, n), "wb") as out:
            out.write(os.urandom(SMALL))
    some = ["f%06d" % n for n in {0, count // 2, count - 1}]
    return {"count": count, "some": {f: file_sha("%s/%s" % (dir, f)) for f in some}}


def run_cell(args, c, work, sources):
    if work == "read":
        return c.read("read-me", args.size, sources["sha"])
    if work == "write":
        return c.write(sources["big"], "write-me-" + c.name, args.size, sources["sha"])
    return c.small(sources["small"], "small-" + c.name, args.count, sources["small_sha"])


def amount(args, work):
    """What a cell moves, in millions of bytes or in files."""
    return args.count if work == "small" else args.size / 1e6


UNIT = {"read": "MB/s", "write": "MB/s", "small": "files/s"}


def measure(args, store, contenders):
    source = SHM + "/source"
    make_source(source, args.size)
    sha = file_sha(source)
    sources = {"big": source, "sha": sha, "small": SHM + "/small"}
    if "small" in args.work:
        sources["small_sha"] = make_small(sources["small"], args.count)
    if "read" in args.work:
        store.put("read-me", source)
    cells = {}
    for n in range(args.rounds):
        for work in args.work.split(","):
            able = [c for c in contenders if hasattr(c, work)]
            shift = n % len(able)
            for c in able[shift:] + able[:shift]:
                print("round %d: %s %s … " % (n + 1, c.name, work), end="", file=sys.stderr, flush=True)
                drop_caches()
                touch_memory(args.size)
                try:
                    cell = run_cell(args, c, work, sources)
                except (RuntimeError, OSError, subprocess.CalledProcessError) as e:
                    print("failed: %s" % e, file=sys.stderr)
                    cells.setdefault((work, c.name), []).append(None)
                    continue
                print("%.0f %s%s" % (amount(args, work) / cell[0], UNIT[work], "" if cell[3] else ", WRONG BYTES"), file=sys.stderr)
                cells.setdefault((work, c.name), []).append(cell)
    return cells


def summarize(args, cells):
    rows = {}
    for (work, name), all_cells in cells.items():
        good = [c for c in all_cells if c]
        row = {"work": work, "contender": name, "rounds": len(all_cells), "failed": len(all_cells) - len(good)}
        if good:
            row["per_s"] = statistics.median(amount(args, work) / c[0] for c in good)
            row["cpu_s"] = statistics.median(c[1] for c in good) * (1 if work == "small" else (1 << 30) / args.size)
            row["peak_mib"] = statistics.median(c[2] for c in good) / MIB
            row["right"] = all(c[3] for c in good)
            row["cells"] = [{"seconds": c[0], "cpu_s": c[1], "peak": c[2], "right": c[3]} for c in good]
            if work == "small":
                row["returned_s"] = statistics.median(c[4] for c in good)  # cp(1)
        rows[work, name] = row
    return rows


def ratio(rows, work):
    """(mlopsfs / the faster peer, its name, CPU of mlopsfs / the lesser peer's), None where there is none."""
    ours = rows.get((work, "mlopsfs"), {})
    peers = [rows[work, p] for p in PEERS if "per_s" in rows.get((work, p), {})]
    if "per_s" not in ours or not peers:
        return None
    best = max(peers, key=lambda r: r["per_s"])
    return ours["per_s"] / best["per_s"], best["contender"], ours["cpu_s"] / max(0.001, min(r["cpu_s"] for r in peers))


def report(args, rows):
    size = "%g GiB" % (args.size / (1 << 30))
    for work in args.work.split(","):
        cpu = "CPU s" if work == "small" else "CPU s/GiB"
        print("%-22s %-9s %8s %8s %12s %10s  %s" % ("", "", UNIT[work], "of curl", cpu, "peak MiB", "sha256"))
        raw = rows.get((work, "curl"), {}).get("per_s")
        title = {"read": "read " + size, "write": "durable write " + size, "small": "cp of %d × 4 KiB" % args.count}[work]
        if args.bandwidth:
            title = "%s MB/s a connection: %s" % (args.bandwidth, title)
        if args.latency:
            title = "%s ms, %s" % (args.latency, title) if args.bandwidth else "%s ms: %s" % (args.latency, title)
        for (w, name), r in sorted(rows.items(), key=lambda i: -i[1].get("per_s", 0)):
            if w != work:
                continue
            if "per_s" not in r:
                print("%-22s %-9s %8s" % (title, name, "failed"))
            else:
                share = "%.2f" % (r["per_s"] / raw) if raw else "-"
                right = "equal" if r["right"] else "WRONG"
                failed = ", %d of %d failed" % (r["failed"], r["rounds"]) if r["failed"] else ""
                if "returned_s" in r and name != "curl":
                    right += ", cp returned after %.2f s" % r["returned_s"]
                cells = (title, name, r["per_s"], share, r["cpu_s"], r["peak_mib"], right + failed)
                print("%-22s %-9s %8.0f %8s %12.2f %10.0f  %s" % cells)
            title = ""
        if found := ratio(rows, work):
            print("%-22s mlopsfs is %.2f times as fast as %s, with %.2f times the CPU of the thriftier peer" % ("", *found))


def memory_limit():
    memory = MEMORY
    for o in os.environ.get("MLOPSFS_OPTIONS", "").replace(",", " ").split():
        if o.startswith("memory="):
            memory = parse_size(o.partition("=")[2])
    return memory + MEMORY_OVER


def verdict(args, rows):
    """1 when something is not as it should be, or was not measured."""
    bad = []
    for work in args.work.split(","):
        absent = [n for n in ("mlopsfs", *PEERS) if "per_s" not in rows.get((work, n), {})]
        if absent:
            bad.append("%s: %s not measured, so nothing is known" % (work, " and ".join(absent)))
            continue
        speed, peer, cpu = ratio(rows, work)
        peak = max(c["peak"] for c in rows[work, "mlopsfs"]["cells"])
        if speed < 1.2:
            bad.append("%s: %.2f times as fast as %s, less than 1.2" % (work, speed, peer))
        if cpu >= 1:
            bad.append("%s: %.2f times the CPU of the thriftier peer" % (work, cpu))
        if peak > memory_limit():
            bad.append("%s: a peak of %.0f MiB, more than %.0f" % (work, peak / MIB, memory_limit() / MIB))
    for line in bad:
        print("bench: " + line, file=sys.stderr)
    return 1 if bad else 0


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = arguments()
    store = Store()
    kinds = [Mlopsfs, S3fs, Rclone, Curl, Boto3]
    if args.only:
        kinds = [k for k in kinds if k.__name__.lower() in args.only.split(",")]
    missing = [k.__name__.lower() for k in kinds if not k.there()]
    contenders = [k(store) for k in kinds if k.__name__.lower() not in missing]
    if missing:
        print("not here: " + ", ".join(missing), file=sys.stderr)
    if not contenders:
        sys.exit("bench: there is nothing to measure")
    try:
        rows = summarize(args, measure(args, store, contenders))
    finally:
        for c in contenders:
            if isinstance(c, Mount):
                c.down()
    report(args, rows)
    if args.json:
        facts = {"size": args.size, "latency_ms": int(args.latency or 0), "connection_mb_per_s": int(args.bandwidth or 0), "count": args.count, "rounds": args.rounds, "cpus": os.cpu_count(), "kernel": platform.release()}
        with open(args.json, "w") as f:
            json.dump({**facts, "rows": list(rows.values())}, f, indent=1)
            f.write("\n")
    wrong = any(not r.get("right", True) or r["failed"] for r in rows.values())
    bad = verdict(args, rows) if args.check else 0
    return 1 if wrong or bad else 0


if __name__ == "__main__":
    sys.exit(main())
