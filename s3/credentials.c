/* SPDX-License-Identifier: Apache-2.0
 *
 * credentials: see credentials.h. Reads the environment and two files, at start, on one thread; no
 * state of its own. Every buffer that held a secret is wiped before it is freed.
 */
#include "s3/credentials.h"

#include <errno.h>
#include <glib.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"

static void wipe(char **s)
{
    if (*s) {
        OPENSSL_cleanse(*s, strlen(*s));
        g_free(*s);
        *s = NULL;
    }
}

void s3_credentials_clear(struct s3_credentials *c)
{
    wipe(&c->access_key);
    wipe(&c->secret_key);
    wipe(&c->session_token);
    memset(c, 0, sizeof *c);
}

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

/* 1 = found, 0 = neither is set. */
static int from_env(const char *access, const char *secret, const char *token,
                    struct s3_credentials *ret)
{
    const char *a = env(access), *s = env(secret);
    if (a == NULL && s == NULL) {
        return 0;
    }
    if (a == NULL || s == NULL) {
        return log_error_errno(-EINVAL, "%s is set, but %s is not; set both or neither",
                               a ? access : secret, a ? secret : access);
    }
    ret->access_key = g_strdup(a);
    ret->secret_key = g_strdup(s);
    ret->session_token = token ? g_strdup(env(token)) : NULL;
    ret->origin = access;
    return 1;
}

/* Profile files */

static void take(struct s3_credentials *c, const char *name, const char *value)
{
    char **field = g_ascii_strcasecmp(name, "aws_access_key_id") == 0       ? &c->access_key
                   : g_ascii_strcasecmp(name, "aws_secret_access_key") == 0 ? &c->secret_key
                   : g_ascii_strcasecmp(name, "aws_session_token") == 0     ? &c->session_token
                                                                            : NULL;
    if (field && *value) {
        wipe(field);
        *field = g_strdup(value);
    }
}

/* One line of an AWS profile file, in place. *in_profile: inside the profile that is looked for. */
static void parse_line(char *line, const char *profile, bool *in_profile, bool *found,
                       struct s3_credentials *c)
{
    g_strstrip(line);
    if (*line == '\0' || *line == '#' || *line == ';') {
        return;
    }
    if (*line == '[') {
        char *end = strchr(line, ']');
        if (end) {
            *end = '\0';
        }
        char *name = g_strstrip(line + 1);
        if (g_str_has_prefix(name, "profile ") || g_str_has_prefix(name, "profile\t")) {
            name = g_strstrip(name + strlen("profile "));
        }
        *in_profile = strcmp(name, profile) == 0;
        *found |= *in_profile;
        return;
    }
    char *eq = strchr(line, '=');
    if (!*in_profile || eq == NULL) {
        return;
    }
    *eq = '\0';
    char *value = g_strstrip(eq + 1);
    char *comment =
        strstr(value, " #"); /* a comment needs a blank before it: secrets may hold '#' */
    if (comment) {
        *comment = '\0';
    }
    take(c, g_strchomp(line), g_strchomp(value));
}

static int check_profile(const char *path, const char *profile, bool found,
                         const struct s3_credentials *c)
{
    if (!found) {
        return 0;
    }
    if (c->access_key && c->secret_key) {
        return 1;
    }
    if (c->access_key || c->secret_key) {
        return log_error_errno(
            -EINVAL, "profile %s in %s has only one of aws_access_key_id and aws_secret_access_key",
            profile, path);
    }
    return 0; /* a role, or settings only: not for us */
}

/* 1 = found, 0 = no such file or profile. */
static int from_profile(const char *asked, struct s3_credentials *ret)
{
    const char *profile = asked ? asked : env("AWS_PROFILE") ? env("AWS_PROFILE") : "default";
    const char *named = env("AWS_SHARED_CREDENTIALS_FILE");
    g_autofree char *path =
        named ? g_strdup(named) : g_build_filename(g_get_home_dir(), ".aws", "credentials", NULL);
    char *text = NULL;
    gsize n = 0;
    g_autoptr(GError) error = NULL;
    if (!g_file_get_contents(path, &text, &n, &error)) {
        if (!g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_NOENT) &&
            !g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR)) {
            log_warning("cannot read %s: %s", path, error->message);
        }
        return 0;
    }
    bool in_profile = false, found = false;
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next) {
            *next++ = '\0';
        }
        parse_line(line, profile, &in_profile, &found, ret);
    }
    OPENSSL_cleanse(text, n);
    g_free(text);
    int r = check_profile(path, profile, found, ret);
    if (r <= 0) {
        s3_credentials_clear(ret);
    }
    ret->origin = "AWS profile";
    return r;
}

/* 1 = found, 0 = the file says nothing. */
static int from_conf(const struct s3_credentials_params *p, struct s3_credentials *ret)
{
    const char *a = p->conf_access_key, *s = p->conf_secret_key;
    bool has_a = a && *a, has_s = s && *s;
    if (!has_a && !has_s) {
        return 0;
    }
    const char *path = p->conf_path ? p->conf_path : "the configuration file";
    if (!has_a || !has_s) {
        return log_error_errno(-EINVAL, "%s has only one of access_key and secret_key", path);
    }
    struct stat st;
    if (p->conf_path && stat(p->conf_path, &st) < 0) {
        int r = -errno;
        return log_error_errno(r, "cannot look at %s", path);
    }
    if (p->conf_path && (st.st_mode & (S_IRGRP | S_IROTH))) {
        return log_error_errno(-EPERM, "%s holds a secret key and others can read it; chmod 600 it",
                               path);
    }
    ret->access_key = g_strdup(a);
    ret->secret_key = g_strdup(s);
    ret->origin = "configuration file";
    return 1;
}

int s3_credentials_load(const struct s3_credentials_params *p, struct s3_credentials *ret)
{
    memset(ret, 0, sizeof *ret);
    if (p->anonymous) {
        ret->anonymous = true;
        ret->origin = "anonymous";
        return 0;
    }
    int r = from_env("S3_ACCESS_KEY", "S3_SECRET_KEY", NULL, ret);
    if (r == 0) {
        r = from_env("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", ret);
    }
    if (r == 0) {
        r = from_profile(p->profile, ret);
        if (r == 0 && p->profile) {
            r = log_error_errno(-ENOENT,
                                "there is no profile %s with keys in the AWS credentials file",
                                p->profile);
        }
    }
    if (r == 0) {
        r = from_conf(p, ret);
    }
    if (r == 0) {
        r = log_error_errno(
            -ENOENT, "no credentials: set S3_ACCESS_KEY and S3_SECRET_KEY, or the AWS names, "
                     "or an AWS profile, or ask for anonymous access");
    }
    if (r < 0) {
        s3_credentials_clear(ret);
        return r;
    }
    return 0;
}
