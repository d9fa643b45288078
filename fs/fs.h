/* SPDX-License-Identifier: Apache-2.0
 *
 * fs: what one mounted file system consists of. Built and taken down by fs/mount.c; everything in
 * it is set before the first request is served and not changed after.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "fs/attr.h"
#include "fs/config.h"

struct cache;
struct cancel;
struct catalog;
struct commits;
struct fuse_session;
struct inode_table;
struct interrupts;
struct opened_list;
struct store;
struct workq;

struct fs {
    const struct config *config;
    struct store *store;  /* the whole stack, retry on top */
    struct store *stats;  /* the stats layer in it */
    struct catalog *catalog;
    struct cache *cache;
    struct inode_table *inodes;
    struct fuse_session *session;
    struct workq *probes;  /* background probing of videos we wrote; NULL when off */
    struct commits *commits;
    struct workq *behind;  /* changes of names whose caller may stop waiting */
    struct cancel *ending; /* fired when the mount ends: what runs in the background stops */
    struct opened_list *handles, *dir_handles, *parked;
    struct interrupts *interrupts;
    char *probe_helper;    /* path of mlopsfs-probe; NULL when off */
    char *catalog_path;
    struct attr_defaults defaults;
    void (*serving)(void *ctx); /* called once, when requests begin to be answered */
    void (*first_request)(void *ctx); /* called once, by the first request after that */
    void *serving_ctx;                /* of both */
    bool asked;                       /* atomic: first_request was called */
};
