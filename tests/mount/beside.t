#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# "a" beside "a/b": keys that a directory tree cannot carry. Made in a local store through mounts of
# different prefixes, as no server's files can keep both.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
[ "$MLOPSFS_STORE" = local ] || skip_all "the servers here keep keys as files"
store_up
mnt_up || bail_out "no mount"
mkdir "$MNT/dir"
echo one >"$MNT/dir/b"
mnt_down
# The object "dir", put there behind the file system's back.
python3 - "$T/store" <<'PY' || skip_all "the index of the local store has another form"
import os, sqlite3, sys
db = sqlite3.connect(os.path.join(sys.argv[1], "index.db"))
columns = [r[1] for r in db.execute("pragma table_info(objects)")]
row = db.execute("select * from objects where cast(key as text) = 'dir/b'").fetchone()
names = dict(zip(columns, row))
names["key"] = b"dir" if isinstance(names["key"], bytes) else "dir"
for drop in ("id", "rowid"):
    names.pop(drop, None)
db.execute("insert into objects (%s) values (%s)" % (",".join(names), ",".join("?" * len(names))), list(names.values()))
db.commit()
PY
mnt_up || bail_out "no mount"
cmd_ok "the directory can be listed" ls "$MNT"
is "$(ls "$MNT" | wc -l)" 1 "one of both is shown, once"
is "$(stat -c %F "$MNT/dir")" directory "it is the directory"
is "$(cat "$MNT/dir/b")" one "what is in it can be read"
cmd_ok "and written" bash -c 'echo two >"$1/dir/c"; cat "$1/dir/c"' - "$MNT"
cmd_ok "and removed" rm "$MNT/dir/b"
done_testing
