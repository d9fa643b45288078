/* SPDX-License-Identifier: Apache-2.0
 *
 * config_table: the one table of options, private to config*.c.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;

enum config_type {
    CONFIG_STRING,   /* char *; "" = NULL */
    CONFIG_PATH,     /* char *, absolute; "~/" is the home directory; "" = NULL */
    CONFIG_BOOL,     /* bool */
    CONFIG_SIZE,     /* uint64_t, bytes */
    CONFIG_DURATION, /* uint64_t, nanoseconds */
    CONFIG_UNSIGNED, /* unsigned */
    CONFIG_COUNT,    /* uint64_t */
    CONFIG_MODE,     /* mode_t, permission bits */
    CONFIG_UID,      /* uid_t */
    CONFIG_GID,      /* gid_t */
    CONFIG_ENUM,     /* int */
    CONFIG_CAPS,     /* struct config_caps */
};

enum config_flags {
    CONFIG_SECRET = 1 << 0,  /* only in a configuration file that nobody else can read; never shown */
    CONFIG_ZERO_OK = 1 << 1, /* 0 is taken although it lies below min */
};

struct config_name {
    const char *name; /* NULL ends the list */
    int value;
};

#define CONFIG_ENV_MAX 3

struct config_option {
    const char *name, *section;
    enum config_type type;
    size_t offset;                   /* into struct config */
    const char *def;                 /* as text; NULL = nothing is set by the table */
    const char *def_help;            /* what the default is, in words; NULL = def says it */
    uint64_t min, max;               /* of numbers, in their unit; max 0 = none */
    unsigned flags;                  /* enum config_flags */
    const char *env[CONFIG_ENV_MAX]; /* environment variables, the first that is set wins */
    const struct config_name *names; /* of CONFIG_ENUM */
    const char *help;                /* sentences */
};

extern const struct config_option config_options[]; /* ends with name NULL; in order of sections */
const struct config_option *config_option_find(const char *name); /* NULL if unknown */
const char *config_option_nearest(const char *name); /* the name most like it, NULL if none is near */

/* Parses text into the option's field. 0, or -EINVAL with *ret_why saying what is right (caller
 * frees). A relative path is completed from the working directory when relative_ok, else refused. */
int config_value_set(struct config *c, const struct config_option *o, const char *text,
                     bool relative_ok, char **ret_why);
/* What is in the way of a value's type: "a size such as 256M". Static. */
const char *config_value_kind(const struct config_option *o);

/* Takes a word of -o that means something for every file system (ro, noexec, _netdev, x-…): true, and *c says what of it is for us and
 * for the kernel. */
bool config_generic_option(struct config *c, const char *word);
