/* replay_answer.c - an answer as it comes: head, the first bytes, and the hash of all. Pure but for
 * memory. */
#include <errno.h>
#include <openssl/evp.h>

#include "common/cleanup.h"
#include "scheduler/record/replay_impl.h"

void replay_answer_done(struct replay_answer *a)
{
    un_buf_done(&a->fields);
    un_buf_done(&a->body);
    EVP_MD_CTX_free(un_steal(&a->md));
}

bool replay_answer_whole(const struct replay_answer *a)
{
    return a->total == a->body.len;
}

int replay_answer_head(struct replay_answer *a, const struct hv_head *head)
{
    int rc = 0;

    a->status = head->status;
    for (size_t i = 0; rc == 0 && i < head->field_count; i++) {
        rc = un_buf_printf(&a->fields, "%s: %s\r\n", head->fields[i].name, head->fields[i].value);
    }
    return rc;
}

static int begin_hash(struct replay_answer *a)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();

    if (!md || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1 ||
        EVP_DigestUpdate(md, a->body.data, a->body.len) != 1) {
        EVP_MD_CTX_free(md);
        return -ENOMEM;
    }
    a->md = md;
    return 0;
}

int replay_answer_add(struct replay_answer *a, const void *data, size_t len, size_t keep, bool hash)
{
    size_t room = keep - a->body.len, n = len < room ? len : room;
    bool whole = replay_answer_whole(a);

    if (!whole) {
        n = 0;
    }
    if (n > 0 && un_buf_append(&a->body, data, n) < 0) {
        return -ENOMEM;
    }
    if (whole && n < len && hash && begin_hash(a) < 0) {
        return -ENOMEM;
    }
    a->total += len;
    if (a->md && EVP_DigestUpdate(a->md, (const char *)data + n, len - n) != 1) {
        return -ENOMEM;
    }
    return 0;
}

void replay_answer_finish(struct replay_answer *a)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;

    if (!a->md && replay_answer_whole(a)) {
        (void)begin_hash(a); /* without memory the hash stays unknown */
    }
    if (a->md && EVP_DigestFinal_ex(a->md, digest, &size) == 1) {
        un_hex_encode(digest, size, a->sha256);
    }
    EVP_MD_CTX_free(un_steal(&a->md));
}
