# SPDX-License-Identifier: Apache-2.0
"""The work that a daemon is killed under, and the look at what is left (torture.sh).

torture.py work MOUNT STATE SEED PID   processes that work on files of MOUNT; after some operations kill -9 for PID, or not: SEED decides.
                                       Prints "killed" or "finished".
torture.py view MOUNT STATE            notes what the mount shows
torture.py check STATE BUCKET CACHE    compares the bucket and that with what they may be; ends uploads that are left. All is in the bucket by
                                       now, so the journals below CACHE must be empty

STATE is a directory: `journal` has a line for each call whose return promises something (close, fsync, rename, unlink) before it is made
("I", the intent, with the content that the file has) and one after it has returned ("A", or "E": it failed for itself); lines "O" are for people. So whatever may be in
the bucket after the kill is known: what the last acknowledged call sealed, or what a call under way would have. `objects` is the bucket as the
last check left it, from which the next work goes on; `kept.json` says which is which. Each file belongs to one process."""
import contextlib
import errno
import glob
import hashlib
import json
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.parse
import xml.etree.ElementTree as E
from concurrent.futures import ThreadPoolExecutor

ABSENT = "absent"
# A kill in the middle of a rename may leave the old object at the old name, beside what was being renamed at the new one.
RENAMES_ARE_WHOLE = False
NAMES = ["a", "b", "c", "d/a", "d/b", "d/c"]
SMALL = 300_000
PROBE = ".mlopsfs-probe-"  # what a kill in the middle of finding out what the server can do leaves
DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)


def digest(data):
    return hashlib.sha1(data).hexdigest() + ":%d" % len(data)


def load(state):
    try:
        with open(os.path.join(state, "kept.json")) as f:
            return json.load(f)
    except FileNotFoundError:
        return {}


def kept_file(state, key):
    return os.path.join(state, "objects", key.replace("/", "%"))


# ---- work ----

class Killed(Exception):
    pass


class File:
    def __init__(self, data):
        self.name = None  # None: it has lost it
        self.data = bytearray(data)
        self.handles = []  # (fd, writable, append)


class Worker:
    def __init__(self, mount, state, number, seed, tick):
        self.mount, self.state, self.number, self.tick = mount, state, number, tick
        self.r = random.Random(seed * 1000 + number)
        self.blob = self.r.randbytes(1 << 20)
        self.journal = os.open(os.path.join(state, "journal"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.id = 0
        self.files, self.ghosts = {}, []
        for key in load(state):
            if key.startswith("w%d/" % number):
                with open(kept_file(state, key), "rb") as f:
                    self.add(key, File(f.read()))

    def add(self, key, f):
        f.name = key
        self.files[key] = f
        return f

    def path(self, key):
        return os.path.join(self.mount, key)

    def note(self, kind, **fields):
        os.write(self.journal, (json.dumps(dict(w=self.number, k=kind, **fields)) + "\n").encode())

    def call(self, fn, *args):
        try:
            return fn(*args)
        except OSError as e:
            if e.errno in DEAD:
                raise Killed()
            try:
                os.statvfs(self.mount)
            except OSError:
                raise Killed()
            raise

    def promise(self, op, fn, *args, **fields):
        """A call that promises something once it returns."""
        self.id += 1
        n = self.id
        self.note("I", id=n, op=op, **fields)
        try:
            self.call(fn, *args)
        except OSError as e:
            self.note("E", id=n, op=op, error=e.strerror, **fields)
            raise
        self.note("A", id=n, op=op, key=fields["key"])

    def bytes(self, n):
        out = bytearray()
        while len(out) < n:
            at = self.r.randrange(len(self.blob))
            out += self.blob[at:at + n - len(out)]
        return bytes(out)

    def length(self):
        return self.r.randrange(1, self.r.choice([100, 5000, 5000, 70000, 140000]))

    # one operation each; False: there is nothing to do it on

    def any_file(self, open_for=None):
        fs = [f for f in self.files.values() if not open_for or any(h[1] for h in f.handles)]
        return self.r.choice(fs) if fs else None

    def writer(self, f):
        return self.r.choice([h for h in f.handles if h[1]])

    def open(self):
        key = "w%d/%s" % (self.number, self.r.choice(NAMES))
        f = self.files.get(key)
        flags = self.r.choice([os.O_RDWR, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_RDONLY])
        if not f:
            flags = self.r.choice([os.O_RDWR, os.O_RDWR | os.O_APPEND]) | os.O_CREAT
        elif len(f.handles) > 2:
            return False
        elif flags != os.O_RDONLY and self.r.random() < 0.2:
            flags |= os.O_TRUNC
        self.note("O", key=key, text="open %o" % flags)
        fd = self.call(os.open, self.path(key), flags, 0o644)
        f = f or self.add(key, File(b""))
        if flags & os.O_TRUNC:
            del f.data[:]
        f.handles.append((fd, flags & os.O_ACCMODE != os.O_RDONLY, bool(flags & os.O_APPEND)))

    def put(self, f, h, data, at):
        done = 0
        self.note("O", key=f.name, text="write %d%s" % (len(data), " at the end" if h[2] else " at %d" % at))
        while done < len(data):
            if h[2]:
                at, n = len(f.data), self.call(os.write, h[0], data[done:])
            else:
                n = self.call(os.pwrite, h[0], data[done:], at)
            if at > len(f.data):
                f.data.extend(bytes(at - len(f.data)))
            f.data[at:at + n] = data[done:done + n]
            at += n
            done += n

    def write(self, f=None):
        f = f or self.any_file(True)
        if not f:
            return False
        end = max(len(f.data), 1) + (20000 if len(f.data) < SMALL else 0)
        at = self.r.choice([self.r.randrange(end), len(f.data)])
        self.put(f, self.writer(f), self.bytes(self.length()), at)

    def stream(self):
        """A big file from its beginning: parts of it go up meanwhile."""
        f = self.any_file(True)
        if not f or f.handles[-1][2] or not f.handles[-1][1]:
            return False
        h = f.handles[-1]
        self.call(os.ftruncate, h[0], 0)
        del f.data[:]
        for at in range(0, self.r.choice([1, 4, 12, 22, 30]) << 20, 1 << 20):
            self.tick()
            self.put(f, h, self.bytes(self.r.randrange(1 << 20, (1 << 20) + 2)), len(f.data))

    def truncate(self):
        f = self.any_file()
        if not f:
            return False
        size = self.r.choice([0, self.r.randrange(len(f.data) + 1), len(f.data) + self.r.randrange(50000)])
        data = f.data[:size] + bytes(max(0, size - len(f.data)))
        if any(h[1] for h in f.handles) and self.r.random() < 0.7:
            self.note("O", key=f.name, text="ftruncate %d" % size)
            self.call(os.ftruncate, self.writer(f)[0], size)
        else:
            self.promise("truncate", os.truncate, self.path(f.name), size, key=f.name, hash=digest(data))
        f.data = data

    def fsync(self):
        f = self.any_file(True)
        if not f:
            return False
        self.promise("fsync", os.fsync, self.writer(f)[0], key=f.name, hash=digest(f.data))

    def fsync_under_writes(self):
        """What is written meanwhile may be part of it, or not."""
        f = self.any_file(True)
        if not f or len(f.data) > 2 * SMALL:
            return False
        failed = []

        def sync(fd):
            try:
                self.promise("fsync", os.fsync, fd, key=f.name, hash=digest(before), states=True)
            except (OSError, Killed) as e:
                failed.append(e)

        before = bytes(f.data)
        t = threading.Thread(target=sync, args=(self.writer(f)[0],))
        self.note("S", key=f.name, hash=digest(before))
        t.start()
        try:
            for _ in range(self.r.randrange(1, 6)):
                at, data = self.r.randrange(len(f.data) + 1), self.bytes(self.r.randrange(1, 20000))
                h = self.writer(f)
                if h[2]:
                    at = len(f.data)
                after = bytes(f.data[:at]) + data + bytes(f.data[at + len(data):])
                self.note("S", key=f.name, hash=digest(after))
                self.put(f, h, data, at)
        finally:
            t.join()
        for e in failed:
            raise e

    def close(self, f=None):
        f = f or self.any_file()
        if not f or not f.handles:
            return False
        h = f.handles.pop(self.r.randrange(len(f.handles)))
        if h[1] and f.name:
            self.promise("close", os.close, h[0], key=f.name, hash=digest(f.data))
        else:
            self.call(os.close, h[0])

    def lose(self, key):
        f = self.files.pop(key)
        f.name = None
        if f.handles:
            self.ghosts.append(f)

    def unlink(self):
        f = self.any_file()
        if not f:
            return False
        self.promise("unlink", os.unlink, self.path(f.name), key=f.name)
        self.lose(f.name)

    def rename(self):
        f, to = self.any_file(), "w%d/%s" % (self.number, self.r.choice(NAMES))
        if not f or f.name == to:
            return False
        self.promise("rename", os.rename, self.path(f.name), self.path(to), key=f.name, to=to, hash=digest(f.data))
        if to in self.files:
            self.lose(to)
        del self.files[f.name]
        self.add(to, f)

    def ghost(self):
        if not self.ghosts:
            return False
        f = self.ghosts.pop()
        if any(h[1] for h in f.handles):
            self.write(f)
        self.check(f, f.handles[0])
        while f.handles:
            self.close(f)

    def check(self, f, h):
        got = b""
        while len(got) < len(f.data):
            piece = self.call(os.pread, h[0], 1 << 20, len(got))
            if not piece:
                break
            got += piece
        if got != f.data:
            self.note("X", key=f.name, text="read %s, wanted %s" % (digest(got), digest(f.data)))
            raise AssertionError("read something else than what was written")

    def read(self):
        f = self.any_file()
        if not f or not f.handles or len(f.data) > 4 << 20:
            return False
        self.check(f, self.r.choice(f.handles))

    def one(self):
        ops = [(self.open, 16), (self.write, 26), (self.stream, 2), (self.truncate, 6), (self.fsync, 6), (self.fsync_under_writes, 4),
               (self.close, 20), (self.unlink, 4), (self.rename, 5), (self.ghost, 4), (self.read, 6)]
        while self.r.choices([o for o, _ in ops], [w for _, w in ops])[0]() is False:
            pass

    def finish(self):
        for f in list(self.files.values()) + self.ghosts:
            while f.handles:
                self.close(f)

    def run(self, n):
        try:
            for _ in range(n):
                self.tick()
                self.one()
            self.finish()
        except Killed:
            pass
        except Exception as e:  # whatever it is, it is to be known
            self.note("X", text="%s: %s" % (type(e).__name__, e))


def work(mount, state, seed, pid):
    r = random.Random(seed)
    workers = r.randrange(1, 5)
    ops = r.choice([10, 40, 100])
    ticks = r.randrange(1, workers * ops) if r.random() < 0.87 else None
    for w in range(5):
        os.makedirs(os.path.join(mount, "w%d" % w, "d"), exist_ok=True)
    get, put = os.pipe()
    children = []
    for w in range(workers):
        child = os.fork()
        if child == 0:
            os.close(get)
            Worker(mount, state, w, seed, lambda: os.write(put, b".")).run(ops)
            os._exit(0)
        children.append(child)
    os.close(put)
    seen, stuck = 0, False
    while ticks is None or seen < ticks:
        if not select.select([get], [], [], 200)[0]:
            stuck = True
            break
        n = len(os.read(get, 4096))
        if n == 0:
            break
        seen += n
    if ticks is not None or stuck:
        select.select([], [], [], r.choice([0, r.random() * 0.003, r.random() * 0.03, r.random() * 0.3]))
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 60
    while children and time.monotonic() < end:
        children = [c for c in children if os.waitpid(c, os.WNOHANG)[0] == 0]
        select.select([get], [], [], 0.02)
    for c in children:
        os.kill(c, signal.SIGKILL)
    print("stuck" if stuck or children else "finished" if ticks is None else "killed")


# ---- what the mount shows ----

def look(mount, path):
    with open(path, "rb") as f:
        return os.path.relpath(path, mount), digest(f.read())


def view(mount, state):
    with ThreadPoolExecutor(16) as pool:
        tops = pool.map(lambda top: list(os.walk(os.path.join(mount, top))), os.listdir(mount))
        paths = [os.path.join(top, n) for walk in tops for top, _, names in walk for n in names]
        seen = dict(pool.map(lambda path: look(mount, path), paths))
    with open(os.path.join(state, "view.json"), "w") as f:
        json.dump(seen, f)


# ---- the bucket, by curl ----

def curl(requests):
    """Each request: (path and query, method, file or None). The answers' status codes."""
    conf = ""
    for path, method, out in requests:
        conf += 'url = "%s/%s"\nuser = "%s:%s"\naws-sigv4 = "aws:amz:us-east-1:s3"\nheader = "x-amz-content-sha256: UNSIGNED-PAYLOAD"\n' % (
            os.environ["S3_ENDPOINT"], path, os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"])
        conf += 'request = "%s"\noutput = "%s"\nwrite-out = "%%{http_code}\\n"\nsilent\nshow-error\nretry = 3\nmax-time = 60\nnext\n' % (
            method, out or "/dev/null")
    p = subprocess.run(["curl", "-K", "-"], input=conf[:-5].encode(), stdout=subprocess.PIPE, check=False)
    return p.stdout.decode().split()


def answer(state, path, method="GET"):
    out = os.path.join(state, "answer")
    code = curl([(path, method, out)])
    if code == ["404"]:
        return []  # an upload that has just ended
    if code != ["200"]:
        sys.exit("%s %s: %s" % (method, path, code))
    root = E.parse(out).getroot()
    for e in root.iter():
        e.tag = e.tag.split("}")[-1]
    return root.iter()


def fetch(state, bucket):
    """key → digest of each object; those that are as they were are not fetched again."""
    kept, now, want = load(state), {}, []
    for e in answer(state, bucket + "?list-type=2"):
        if e.tag == "Contents" and e.findtext("Key").startswith(PROBE):
            print("left over: %s" % e.findtext("Key"))
            curl([(bucket + "/" + e.findtext("Key"), "DELETE", None)])
        elif e.tag == "Contents" and not e.findtext("Key").endswith("/"):
            now[e.findtext("Key")] = dict(etag=e.findtext("ETag"), hash=None)
        elif e.tag == "IsTruncated" and e.text == "true":
            sys.exit("too many objects")
    for key in kept.keys() - now.keys():
        os.unlink(kept_file(state, key))
    for key, o in now.items():
        if key in kept and kept[key]["etag"] == o["etag"]:
            o["hash"] = kept[key]["hash"]
        else:
            want.append(key)
    codes = curl([(bucket + "/" + urllib.parse.quote(k), "GET", kept_file(state, k)) for k in want]) if want else []
    if codes != ["200"] * len(want):
        sys.exit("cannot fetch %s: %s" % (want, codes))
    for key in want:
        with open(kept_file(state, key), "rb") as f:
            now[key]["hash"] = digest(f.read())
    with open(os.path.join(state, "kept.json"), "w") as f:
        json.dump(now, f)
    return {k: o["hash"] for k, o in now.items()}


def uploads(state, bucket):
    """(key, number of parts, its path) of each upload that is under way."""
    found = [(u.findtext("Key"), u.findtext("UploadId")) for u in answer(state, bucket + "?uploads=") if u.tag == "Upload"]
    for key, upload in found:
        path = "%s/%s?uploadId=%s" % (bucket, urllib.parse.quote(key), urllib.parse.quote(upload, safe=""))
        yield key, sum(e.tag == "Part" for e in answer(state, path)), path


# ---- what may be there ----

class Model:
    def __init__(self, state):
        self.legal = {k: {o["hash"]} for k, o in load(state).items()}
        self.ever = {k: set(v) for k, v in self.legal.items()}
        self.pending, self.states, self.renames, self.errors = {}, {}, {}, []
        self.lines = []
        try:
            with open(os.path.join(state, "journal")) as f:
                for line in f:
                    self.lines.append(line)
                    self.take(json.loads(line))
        except FileNotFoundError:
            pass

    def of(self, key):
        return self.legal.setdefault(key, {ABSENT})

    def take(self, e):
        key = e.get("key")
        if e["k"] == "I":
            self.pending[e["w"], e["id"]] = e
            self.intent(e, key)
            self.ever.setdefault(key, set()).add(e.get("hash"))
            if e["op"] == "rename":
                self.ever.setdefault(e["to"], set()).add(e["hash"])
        elif e["k"] == "S":
            self.states.setdefault(key, set()).add(e["hash"])
            if any(p.get("states") and p["key"] == key for p in self.pending.values()):
                self.of(key).add(e["hash"])
        elif e["k"] == "A":
            self.acknowledged(self.pending.pop((e["w"], e["id"])))
        elif e["k"] == "O":
            pass  # for people
        elif e["k"] == "E":
            self.errors.append("%s of %s failed: %s" % (e["op"], key, e["error"]))
            self.renames.pop((e["w"], e["id"]), None)
        else:
            self.errors.append("%s: %s" % (key, e["text"]))

    def intent(self, e, key):
        if e["op"] == "unlink":
            self.of(key).add(ABSENT)
        elif e["op"] == "rename":
            source = set(self.of(key))
            self.renames[e["w"], e["id"]] = (key, e["to"], source | {e["hash"]}, set(self.of(e["to"])))
            self.legal[e["to"]] = self.of(e["to"]) | (source - {ABSENT}) | {e["hash"]}
            self.of(key).update({ABSENT, e["hash"]})
        else:
            self.of(key).add(e["hash"])
            if e.get("states"):
                self.of(key).update(self.states.get(key, set()))

    def acknowledged(self, e):
        key = e["key"]
        if e["op"] == "unlink":
            self.legal[key] = {ABSENT}
        elif e["op"] == "rename":
            self.legal[key], self.legal[e["to"]] = {ABSENT}, {e["hash"]}
            del self.renames[e["w"], e["id"]]
        elif e["op"] != "truncate":  # which is committed, or is part of the next commit
            self.legal[key] = {e["hash"]} | (self.states.get(key, set()) if e.get("states") else set())
        self.states.pop(key, None)

    def is_left(self, key, got, there):
        return not RENAMES_ARE_WHOLE and any(
            key == old and got in self.ever[key] and there.get(to) in content for old, to, content, _ in self.renames.values())

    def wrong(self, who, there):
        for key in sorted(self.legal.keys() | there.keys()):
            got = there.get(key, ABSENT)
            if got not in self.of(key) and not self.is_left(key, got, there):
                yield key, "%s: %s is %s, and may be %s" % (who, key, got, " or ".join(sorted(self.of(key))))
        for key, to, content, before in self.renames.values():
            gone, arrived = there.get(key, ABSENT) == ABSENT, there.get(to, ABSENT) in content
            if gone and not arrived and ABSENT not in content:
                yield key, "%s: neither %s nor %s has what was being renamed" % (who, key, to)


def recorded(cache):
    """What the journals have yet, a line each."""
    for name in glob.glob(os.path.join(cache, "**", "journal.db"), recursive=True):
        with contextlib.closing(sqlite3.connect("file:%s?mode=ro" % urllib.parse.quote(name), uri=True)) as db:
            for file, gen, key, flags in db.execute("SELECT file, gen, key, flags FROM seals"):
                yield "a seal of %s: file %d, generation %d, flags %d" % (key.decode(), file, gen, flags)
            for file, key in db.execute("SELECT file, key FROM uploads"):
                yield "an upload of %s: file %d" % (key.decode(), file)


def soon(seconds, fn, *args):
    """What fn lists, once it is nothing, or after that time."""
    end = time.monotonic() + seconds
    left = list(fn(*args))
    while left and time.monotonic() < end:
        left = list(fn(*args))
    return left


def check(state, bucket, cache):
    model = Model(state)
    there = fetch(state, bucket)
    with open(os.path.join(state, "view.json")) as f:
        seen = json.load(f)
    bad = [(None, e) for e in model.errors]
    bad += list(model.wrong("the mount", seen)) + list(model.wrong("the bucket", there))
    bad += [(k, "%s: the mount showed %s, the bucket got %s" % (k, seen.get(k, ABSENT), there.get(k, ABSENT)))
            for k in sorted(seen.keys() | there.keys()) if seen.get(k) != there.get(k)]
    bad += [(None, "the journal has %s" % line) for line in soon(20, recorded, cache)]
    for key, n, path in soon(1, uploads, state, bucket):
        if key.startswith(PROBE):
            print("left over: an upload of %s" % key)
            curl([(path, "DELETE", None)])
        elif n:
            bad.append((key, "an upload of %s with %d parts is left" % (key, n)))
    for _, text in bad:
        print("WRONG %s" % text)
    keys = {k for k, _ in bad if k}
    for line in [line for line in model.lines if not keys or any('"%s"' % k in line for k in keys)][-60:] if bad else []:
        print("  " + line.rstrip())
    if not bad:
        os.rename(os.path.join(state, "journal"), os.path.join(state, "journal.last")) if model.lines else None
        print("checked %d of %d lines" % (sum('"A"' in line for line in model.lines), len(model.lines)))
    sys.exit(1 if bad else 0)


def ended(state, bucket):
    """Nothing is under way: also what no kill was answered about is ended, after a while."""
    left = ["an upload of %s with %d parts" % (key, n) for key, n, _ in uploads(state, bucket)]
    print("\n".join(left))
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    elif sys.argv[1] == "view":
        view(sys.argv[2], sys.argv[3])
    elif sys.argv[1] == "ended":
        ended(sys.argv[2], sys.argv[3])
    else:
        check(sys.argv[2], sys.argv[3], sys.argv[4])
