# SPDX-License-Identifier: Apache-2.0
"""What a disk may hold after a power cut, from a log of tests/crash/powerlog.c.

    power.py marks LOG                  the number of records, and the marks: "INDEX TEXT"
    power.py cut LOG INDEX SEED DIR     makes in DIR (which must not be there) what may be left of the first INDEX records

A file has what was synced of it; of what was written since, any pages may be there and others not. Names are made and removed in
their order, as in a journalling file system: what is left is a beginning of that, with all that came before the last sync.
"""
import os, random, sys

PAGE = 4096


def records(path):
    with open(path, "rb") as f:
        while True:
            line = f.readline()
            if not line.endswith(b"\n"):
                return
            head, a, b = line.decode().rsplit(" ", 2)
            op, name = head.split(" ", 1)
            a, b = int(a), int(b)
            yield op, name, a, b, f.read(b) if op == "write" else None


class File:
    def __init__(self):
        self.data, self.pending = bytearray(), []

    def apply(self, op, a, b, data):
        d = self.data
        if op == "write":
            if len(d) < a + len(data):
                d.extend(bytes(a + len(data) - len(d)))
            d[a:a + len(data)] = data
        elif op == "truncate":
            if a < len(d):
                del d[a:]
            else:
                d.extend(bytes(a - len(d)))
        elif op == "punch":
            n = max(0, min(b, len(d) - a))
            d[a:a + n] = bytes(n)

    def sync(self):
        for p in self.pending:
            self.apply(*p)
        self.pending = []

    # Each page that was written is there or not; a file's end may be, without its bytes.
    def tear(self, rng, keep):
        for op, a, b, data in self.pending:
            if op != "write":
                if rng.random() < keep:
                    self.apply(op, a, b, data)
                continue
            if rng.random() < 0.5 and len(self.data) < a + len(data):
                self.data.extend(bytes(a + len(data) - len(self.data)))
            at = a
            while at < a + len(data):
                end = min((at // PAGE + 1) * PAGE, a + len(data))
                if rng.random() < keep:
                    self.apply("write", at, 0, data[at - a:end - a])
                at = end
        self.pending = []


def cut(log, index, seed, to):
    rng = random.Random(seed)
    names, sure, inodes, inode = [], 0, {}, {}
    for i, (op, name, a, b, data) in enumerate(records(log)):
        if i >= index:
            break
        if op in ("create", "mkdir"):
            f = File() if op == "create" else None
            inode[name] = f
            names.append((op, name, f))
        elif op == "unlink":
            names.append((op, name, None))
            inode.pop(name, None)
        elif op == "sync":
            sure = len(names)
            if inode.get(name):
                inode[name].sync()
        elif op != "mark" and inode.get(name):
            inode[name].pending.append((op, a, b, data))
    os.makedirs(to, 0o700)
    tree = {}
    for op, name, f in names[:rng.randint(sure, len(names))]:
        if op == "unlink":
            tree.pop(name, None)
        else:
            tree[name] = f
    for name, f in sorted(tree.items()):
        path = os.path.join(to, name)
        if f is None:
            os.makedirs(path, 0o700)
            continue
        f.tear(rng, rng.choice([0, 0.1, 0.5, 0.9, 1, 1]))
        with open(path, "wb") as out:
            out.write(f.data)


def main():
    if sys.argv[1] == "marks":
        n = 0
        for n, r in enumerate(records(sys.argv[2]), 1):
            if r[0] == "mark":
                print(n, r[1])
        print(n, "end")
    else:
        cut(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])


main()
