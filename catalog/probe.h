/* SPDX-License-Identifier: Apache-2.0
 *
 * probe: asks the helper process mlopsfs-probe for the facts of one media file. The helper runs
 * libavformat without network or files, under seccomp, memory and time limits; it asks for byte
 * ranges over a socket and answers with facts. Whatever it does (crash, hang, lie), the caller gets
 * an errno and bounded strings. The protocol is private to probe.c and mlopsfs-probe.c.
 */
#pragma once
#include "catalog/catalog.h"

struct probe_params {
    const char *helper;   /* path of mlopsfs-probe */
    uint64_t timeout_ns;  /* in all; 0 = 20 s */
    uint64_t memory;      /* address space the helper may add to what it has mapped at start, bytes; 0 = 512 MiB */
    uint64_t read_max;    /* bytes it may ask for in all; 0 = 64 MiB */
};

struct probe_source {
    /* n bytes at off (inside the object): n, or -errno. May block (that time counts). */
    ssize_t (*read)(void *ctx, void *buf, size_t n, uint64_t off);
    void *ctx;
    uint64_t size;
    const char *name; /* a file name, for libavformat's guess */
};

/* 0 (*ret filled except uuid; is_media false when it is no media); -ENOENT helper missing; -ETIMEDOUT; -EPROTO helper crashed
 * or talked nonsense; -errno of the source's read. Blocks up to the timeout. Thread-safe; logs nothing secret. */
int probe_run(const struct probe_params *p, const struct probe_source *src, struct video *ret);
