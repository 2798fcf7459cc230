/* push.c - see push.h. */
#include "cli/push.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/progress.h"
#include "common/cleanup.h"

enum { CHUNK_BYTES = 1 << 18 };

static int hash_all(int fd, EVP_MD_CTX *ctx, struct un_error *err)
{
    un_autofree unsigned char *chunk = malloc(CHUNK_BYTES);
    if (!chunk || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    off_t at = 0;
    for (;;) {
        ssize_t n = pread(fd, chunk, CHUNK_BYTES, at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return un_error_set(err, -errno, "%s", strerror(errno));
        }
        if (n == 0) {
            return 0;
        }
        at += n;
        if (EVP_DigestUpdate(ctx, chunk, (size_t)n) != 1) {
            return un_error_set(err, -EIO, "libcrypto cannot hash");
        }
    }
}

int push_digest(int fd, char ret[PUSH_DIGEST_SIZE], struct un_error *err)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int rc = ctx ? hash_all(fd, ctx, err) : un_error_set(err, -ENOMEM, "out of memory");
    if (rc == 0 && (EVP_DigestFinal_ex(ctx, hash, &len) != 1 || len != 32)) {
        rc = un_error_set(err, -EIO, "libcrypto cannot hash");
    }
    EVP_MD_CTX_free(ctx);
    if (rc == 0) {
        memcpy(ret, "sha256:", 7);
        un_hex_encode(hash, len, ret + 7);
    }
    return rc;
}

bool push_is_digest(const char *s)
{
    return strlen(s) == PUSH_DIGEST_SIZE - 1 && strncmp(s, "sha256:", 7) == 0 &&
           strspn(s + 7, "0123456789abcdef") == 64;
}

int push_set_tag(const struct cli_call *call, const char *tag, const char *digest, json_t **ret)
{
    un_autofree char *path = api_path("/api/v1/tags/%s", tag);
    un_autojson json_t *body = json_pack("{s:s}", "digest", digest);
    if (!body) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    return api_call(call, "PUT", path, body, ret);
}

struct push_source {
    const char *path, *name;
    int fd;
    uint64_t size;
    char digest[PUSH_DIGEST_SIZE];
};

static int upload(const struct cli_call *call, const struct push_source *s, const char *tag,
                  json_t **ret)
{
    un_autofree char *path = tag ? api_path("/api/v1/images?digest=%s&tag=%s", s->digest, tag)
                                 : api_path("/api/v1/images?digest=%s", s->digest);
    if (!path) {
        return cli_fail(CLI_REFUSED, "out of memory");
    }
    struct progress progress;
    progress_start(&progress, s->name, s->size);
    struct client_request req = {
        .method = "POST",
        .path = path,
        .has_fd = true,
        .fd = s->fd,
        .fd_size = (int64_t)s->size,
        .progress = &progress,
    };
    un_autoresponse struct client_response r = {0};
    struct un_error err = UN_ERROR_INIT;
    int rc = client_send(call->client, &req, &r, &err);
    progress_end(&progress);
    if (rc < 0) {
        return cli_fail_send(call, rc, &err);
    }
    if (r.status != 200 && r.status != 201) {
        return cli_fail_response(call, &r);
    }
    if (un_json_parse(r.body.data, r.body.len, ret, &err) < 0) {
        return cli_fail(CLI_REFUSED, "the daemon's answer is no JSON: %s", err.text);
    }
    return CLI_DONE;
}

static int open_source(const char *path, struct push_source *s)
{
    const char *slash = strrchr(path, '/');
    *s = (struct push_source){.path = path, .name = slash ? slash + 1 : path};
    s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (s->fd < 0 || fstat(s->fd, &st) < 0) {
        return cli_fail(CLI_REFUSED, "cannot read %s: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        return cli_fail(CLI_REFUSED, "%s is %s: give a program or a unikernel image", path,
                        S_ISREG(st.st_mode) ? "empty" : "no regular file");
    }
    s->size = (uint64_t)st.st_size;
    struct un_error err = UN_ERROR_INIT;
    if (push_digest(s->fd, s->digest, &err) < 0) {
        return cli_fail(CLI_REFUSED, "cannot read %s: %s", path, err.text);
    }
    return CLI_DONE;
}

static int push_source(const struct cli_call *call, const struct push_source *s, const char *tag,
                       json_t **ret)
{
    un_autojson json_t *image = NULL;
    un_autofree char *path = api_path("/api/v1/images/%s", s->digest);
    int status = api_find(call, path, &image);
    if (status == CLI_DONE && !image) {
        status = upload(call, s, tag, &image);
    } else if (status == CLI_DONE && tag) {
        un_autojson json_t *answer = NULL;
        status = push_set_tag(call, tag, s->digest, &answer);
    }
    if (status == CLI_DONE) {
        *ret = un_steal(&image);
    }
    return status;
}

int push_file(const struct cli_call *call, const char *path, const char *tag, json_t **ret)
{
    struct push_source s;
    int status = open_source(path, &s);
    if (status == CLI_DONE) {
        status = push_source(call, &s, tag, ret);
    }
    un_closep(&s.fd);
    return status;
}

int push_fd(const struct cli_call *call, int fd, const char *name, json_t **ret)
{
    struct push_source s = {.path = name, .name = name, .fd = fd};
    struct un_error err = UN_ERROR_INIT;
    struct stat st;
    if (fstat(fd, &st) < 0 || lseek(fd, 0, SEEK_SET) < 0 || push_digest(fd, s.digest, &err) < 0) {
        return cli_fail(CLI_REFUSED, "cannot read what was collected: %s",
                        err.text[0] ? err.text : strerror(errno));
    }
    s.size = (uint64_t)st.st_size;
    return push_source(call, &s, NULL, ret);
}

int push_named(const struct cli_call *call, const char *what, char ret_digest[PUSH_DIGEST_SIZE])
{
    un_autojson json_t *image = NULL;
    int status = CLI_DONE;
    if (!push_is_digest(what)) {
        status = push_file(call, what, NULL, &image);
        what = api_str(image, "digest");
    }
    if (status == CLI_DONE && !push_is_digest(what)) {
        status = cli_fail(CLI_REFUSED, "the daemon's answer has no digest");
    }
    if (status == CLI_DONE) {
        memcpy(ret_digest, what, PUSH_DIGEST_SIZE);
    }
    return status;
}
