#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The server hears nothing, writers are interrupted in close: `mlopsfs umount` shows what is left, waits, and brings all of it into the bucket.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up
start_toxiproxy
through=http://$(toxi_proxy s3 "127.0.0.1:$server_port")
S3_ENDPOINT=$through mnt_up op_timeout=600s || bail_out "no mount"
echo first >"$MNT/first" # from here on the mount knows what the server can do
n=6000000
cat >"$T/write.py" <<'PY'
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
data = open(sys.argv[1], "rb").read()
f = os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY)
while data:
    data = data[os.write(f, data):]
print("written", flush=True)
sys.stdin.read()
os.close(f)
print("closed", flush=True)
PY
mkfifo "$T/go"
exec {go}<>"$T/go"
pids=() files=(f1 f2 f3)
for f in "${files[@]}"; do
    gen "${f#f}" $n >"$T/$f"
    python3 "$T/write.py" "$T/$f" "$MNT/$f" <"$T/go" {go}>&- >"$T/$f.out" 2>&1 &
    pids+=($!)
done
written() { [ "$(cat "$T"/f?.out | grep -c written)" = 3 ]; }
wait_until 60 written
toxi_add s3 timeout upstream '{"timeout":0}' || bail_out "no toxic" # what is sent is held, the connection stays
exec {go}>&-
in_close() {
    local p
    for p in "${pids[@]}"; do grep -q -E 'fuse|request_wait' "/proc/$p/stack" "/proc/$p/wchan" 2>/dev/null || return 1; done
}
wait_until 60 in_close
ok $? "three writers wait in close"
{ kill -INT "${pids[@]}"; wait "${pids[@]}"; } 2>/dev/null
is "$(cat "$T"/f?.out | grep -c closed)" 0 "a signal ends them"
is "$("$MLOPSFS_BIN" status "$MNT" | grep '^dirty ' | sort | tr '\n' ' ')" "dirty closed f1 dirty closed f2 dirty closed f3 " "what they wrote is not in the bucket yet"
is "$(s3_ls)" first "the bucket has none of it"
"$MLOPSFS_BIN" umount "$MNT" >"$T/out" 2>"$T/err" &
umount=$!
shown() { [ "$(grep -c '^3 files' "$T/out")" -ge 2 ] || tap_gone $umount; }
wait_until 60 shown
like "$(uniq -c "$T/out")" "^ *[0-9]+ 3 files(, 17\.2 MiB)? to go" "umount shows how much is left, again and again"
tap_gone $umount
is $? 1 "it waits"
mnt_is_mounted
ok $? "and the mount stays meanwhile"
toxi_del s3 timeout_upstream
wait_until 100 tap_gone $umount
wait $umount
is "$?:$(<"$T/err")" "0:" "the server hears again: umount ends well"
like "$(tail -n 1 "$T/out")" "^0 files to go$" "and says that nothing is left"
is "$(grep -vcE '^[0-9]+ files?(, [0-9]+\.[0-9] MiB)? to go$' "$T/out")" 0 "each of its lines is one of progress"
mnt_reap
mnt_is_mounted
is $? 1 "it is unmounted"
for f in "${files[@]}"; do is "$(s3_sha "$f")" "$(sha "$T/$f")" "$f is in the bucket, all of it"; done
done_testing
