# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# writers: processes that have a file of the mount open, for the tests of what a kill leaves. Needs mount.sh.
#
#   writer TARGET SOURCE FIFO [N]  opens $MNT/TARGET and writes a part (N bytes) of the file SOURCE ("-": a word at 10000000); once
#                               the fifo $T/FIFO is opened it writes the rest, closes, and says so in $T/FIFO.out
#   end_writers                 kills them

cat >"$T/writer.py" <<'PY'
import os, sys
path, fifo, source = sys.argv[1:4]
data = open(source, "rb").read() if source != "-" else b"changed"
f = os.open(path, os.O_CREAT | os.O_WRONLY)
if source == "-":
    os.lseek(f, 10000000, os.SEEK_SET)
n = int(sys.argv[4]) if len(sys.argv) > 4 else len(data) * 7 // 12
os.write(f, data[:n])
print("open", flush=True)
open(fifo, "rb").read()
os.write(f, data[n:])
try:
    os.close(f)
    print("closed", flush=True)
except OSError as e:
    print("close: %s" % e.strerror, flush=True)
PY
writers=()
end_writers() {
    [ ${#writers[@]} = 0 ] || kill "${writers[@]}" 2>/dev/null
    writers=()
}
at_exit end_writers
writer() {
    rm -f "$T/$3.out"
    [ -p "$T/$3" ] || mkfifo "$T/$3"
    python3 "$T/writer.py" "$MNT/$1" "$T/$3" "$2" ${4+"$4"} >"$T/$3.out" 2>/dev/null &
    writers+=($!)
    wait_until 60 grep -qs open "$T/$3.out"
}
