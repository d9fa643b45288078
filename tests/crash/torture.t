#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 under random work, again and again: what scripts/torture does, for a short while.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_foreign
store_up
. "$TOP/tests/crash/torture.sh"
diag "MLOPSFS_SEED=$MLOPSFS_SEED"
rounds=${TORTURE_ROUNDS:-$(sanitized && echo 5 || echo 20)} # scripts/torture
torture_mount "$MLOPSFS_SEED" || bail_out "no mount"
for ((n = 0; n < rounds; n++)); do
    seed=$((MLOPSFS_SEED + n * 101))
    torture_round "$seed"
    rc=$?
    ok $rc "round $seed"
    [ $rc = 0 ] || break
done
torture_end
ok $? "no journal, nothing staged and no upload is left"
torture_left
done_testing
