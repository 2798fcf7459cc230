/* reg.c - the bytes of regular files: pages of the image, shared until written, and own ones.
 *
 * A page is an own one (a frame in `chunks`), else one of the image (below base_pages), else a
 * hole. Bytes behind the file's end in its last page are zero.
 */
#include "fs/vfs.h"
#include "mm.h"

#define CHUNK_PAGES 512

static uint64_t own_frame(const struct inode *i, uint64_t index)
{
    uint64_t chunk = index / CHUNK_PAGES;
    if (chunk >= i->r.chunk_count || !i->r.chunks[chunk]) {
        return 0;
    }
    return i->r.chunks[chunk][index % CHUNK_PAGES];
}

uint64_t reg_frame(const struct inode *i, uint64_t index)
{
    uint64_t frame = own_frame(i, index);
    if (!frame && index < i->r.base_pages) {
        frame = i->r.base + index * PAGE_SIZE;
    }
    return frame;
}

bool reg_has_page(const struct inode *i, uint64_t index)
{
    return reg_frame(i, index) != 0;
}

uint64_t reg_pages(const struct inode *i)
{
    return i->r.base_pages + i->r.beyond;
}

/* Where the frame of page `index` is to be written down; NULL: no memory. */
static uint64_t *own_slot(struct inode *i, uint64_t index)
{
    uint64_t chunk = index / CHUNK_PAGES;
    if (chunk >= i->r.chunk_count) {
        uint64_t count = i->r.chunk_count ? i->r.chunk_count * 2 : 4;
        while (count <= chunk) {
            count *= 2;
        }
        uint64_t **more = kalloc(count * sizeof(*more));
        if (!more) {
            return NULL;
        }
        if (i->r.chunks) {
            memcpy(more, i->r.chunks, i->r.chunk_count * sizeof(*more));
            kfree(i->r.chunks);
        }
        i->r.chunks = more;
        i->r.chunk_count = count;
    }
    if (!i->r.chunks[chunk]) {
        uint64_t frame = frame_alloc();
        if (!frame) {
            return NULL;
        }
        i->r.chunks[chunk] = phys_to_virt(frame);
    }
    return &i->r.chunks[chunk][index % CHUNK_PAGES];
}

/* The file's own page, made from the image's or zeros. `whole`: all of it will be written. */
static uint64_t make_own(struct inode *i, uint64_t index, bool whole)
{
    uint64_t frame = own_frame(i, index);
    if (frame) {
        return frame;
    }
    uint64_t *slot = own_slot(i, index);
    frame = slot ? frame_alloc() : 0;
    if (!frame) {
        return 0;
    }
    if (!whole && index < i->r.base_pages) {
        memcpy(phys_to_virt(frame), phys_to_virt(i->r.base + index * PAGE_SIZE), PAGE_SIZE);
    }
    *slot = frame;
    i->r.own_pages++;
    i->r.beyond += index >= i->r.base_pages;
    return frame;
}

uint64_t reg_frame_writable(struct inode *i, uint64_t index)
{
    return index < page_up(i->size) / PAGE_SIZE ? make_own(i, index, false) : 0;
}

int64_t reg_read(struct inode *i, void *to, size_t len, uint64_t offset)
{
    if (offset >= i->size || !len) {
        return 0;
    }
    if (len > i->size - offset) {
        len = i->size - offset;
    }
    if (!i->r.own_pages && offset + len <= i->r.base_pages * PAGE_SIZE) {
        memcpy(to, (char *)phys_to_virt(i->r.base) + offset, len);
        return (int64_t)len;
    }
    for (size_t done = 0; done < len;) {
        uint64_t in_page = (offset + done) & PAGE_MASK;
        size_t part = PAGE_SIZE - in_page < len - done ? PAGE_SIZE - in_page : len - done;
        uint64_t frame = reg_frame(i, (offset + done) / PAGE_SIZE);
        if (frame) {
            memcpy((char *)to + done, (char *)phys_to_virt(frame) + in_page, part);
        } else {
            memset((char *)to + done, 0, part);
        }
        done += part;
    }
    return (int64_t)len;
}

const void *reg_span(const struct inode *i, uint64_t offset, uint64_t len, uint64_t *ret_span)
{
    uint64_t left = offset < i->size ? i->size - offset : 0;
    if (len > left) {
        len = left;
    }
    if (!i->r.own_pages && offset + len <= i->r.base_pages * PAGE_SIZE) {
        *ret_span = len;
        return (const char *)phys_to_virt(i->r.base) + offset;
    }
    uint64_t in_page = offset & PAGE_MASK;
    *ret_span = PAGE_SIZE - in_page < len ? PAGE_SIZE - in_page : len;
    uint64_t frame = reg_frame(i, offset / PAGE_SIZE);
    return frame ? (const char *)phys_to_virt(frame) + in_page : NULL;
}

/* Once: a program may write on and on. */
static int64_t no_room(void)
{
    static bool told;
    if (!told) {
        klog("no memory is left for files: %lu KiB in all; deploy with more --memory",
             frames_total() * 4);
        told = true;
    }
    return -ENOSPC;
}

int64_t reg_write(struct inode *i, const void *from, size_t len, uint64_t offset)
{
    if (!len) {
        return 0; /* does not even make the file longer */
    }
    if (offset >= FILE_SIZE_MAX) {
        return -EFBIG;
    }
    if (len > FILE_SIZE_MAX - offset) {
        len = FILE_SIZE_MAX - offset;
    }
    size_t done = 0;
    while (done < len) {
        uint64_t in_page = (offset + done) & PAGE_MASK;
        size_t part = PAGE_SIZE - in_page < len - done ? PAGE_SIZE - in_page : len - done;
        uint64_t frame = make_own(i, (offset + done) / PAGE_SIZE, part == PAGE_SIZE);
        if (!frame) {
            break;
        }
        memcpy((char *)phys_to_virt(frame) + in_page, (const char *)from + done, part);
        done += part;
    }
    if (!done) {
        return no_room();
    }
    if (offset + done > i->size) {
        i->size = offset + done;
    }
    inode_touch(i);
    return (int64_t)done;
}

static void drop_own(struct inode *i, uint64_t index)
{
    uint64_t frame = own_frame(i, index);
    if (frame) {
        i->r.chunks[index / CHUNK_PAGES][index % CHUNK_PAGES] = 0;
        i->r.own_pages--;
        i->r.beyond -= index >= i->r.base_pages;
        frame_free(frame);
    }
}

/* Own pages from `first` on. */
static void drop_from(struct inode *i, uint64_t first)
{
    for (uint64_t c = first / CHUNK_PAGES; c < i->r.chunk_count; c++) {
        if (!i->r.chunks[c]) {
            continue;
        }
        for (uint64_t n = 0; n < CHUNK_PAGES; n++) {
            if (c * CHUNK_PAGES + n >= first) {
                drop_own(i, c * CHUNK_PAGES + n);
            }
        }
        if (c * CHUNK_PAGES >= first) {
            frame_free(virt_to_phys(i->r.chunks[c]));
            i->r.chunks[c] = NULL;
        }
    }
}

int reg_truncate(struct inode *i, uint64_t size)
{
    if (size > FILE_SIZE_MAX) {
        return -EFBIG;
    }
    if (size < i->size) {
        uint64_t pages = page_up(size) / PAGE_SIZE;
        if ((size & PAGE_MASK) && reg_has_page(i, size / PAGE_SIZE)) {
            uint64_t frame = make_own(i, size / PAGE_SIZE, false);
            if (!frame) {
                return -ENOSPC;
            }
            memset((char *)phys_to_virt(frame) + (size & PAGE_MASK), 0,
                   PAGE_SIZE - (size & PAGE_MASK));
        }
        drop_from(i, pages);
        if (i->r.base_pages > pages) {
            i->r.base_pages = pages;
        }
    }
    i->size = size;
    inode_touch(i);
    return 0;
}

int reg_allocate(struct inode *i, uint64_t offset, uint64_t len, bool keep_size)
{
    if (len > FILE_SIZE_MAX || offset > FILE_SIZE_MAX - len) {
        return -EFBIG;
    }
    if (page_up(len) / PAGE_SIZE > frames_free()) {
        return -ENOSPC;
    }
    if (!keep_size && offset + len > i->size) {
        i->size = offset + len;
    }
    for (uint64_t n = offset / PAGE_SIZE; n * PAGE_SIZE < offset + len; n++) {
        if (n * PAGE_SIZE < i->size && !reg_has_page(i, n) && !make_own(i, n, false)) {
            return -ENOSPC;
        }
    }
    inode_touch(i);
    return 0;
}

int reg_punch(struct inode *i, uint64_t offset, uint64_t len)
{
    uint64_t end = offset + len < i->size ? offset + len : i->size;
    while (offset < end) {
        uint64_t in_page = offset & PAGE_MASK;
        uint64_t part = PAGE_SIZE - in_page < end - offset ? PAGE_SIZE - in_page : end - offset;
        uint64_t index = offset / PAGE_SIZE;
        if (part == PAGE_SIZE && index >= i->r.base_pages) {
            drop_own(i, index);
        } else if (reg_has_page(i, index)) {
            uint64_t frame = make_own(i, index, part == PAGE_SIZE);
            if (!frame) {
                return -ENOSPC;
            }
            memset((char *)phys_to_virt(frame) + in_page, 0, part);
        }
        offset += part;
    }
    inode_touch(i);
    return 0;
}

void reg_release(struct inode *i)
{
    drop_from(i, 0);
    kfree(i->r.chunks);
}

static int64_t regular_read(struct file *f, void *to, size_t len, uint64_t *pos)
{
    int64_t n = reg_read(f->inode, to, len, *pos);
    if (n > 0) {
        *pos += (uint64_t)n;
    }
    return n;
}

static int64_t regular_write(struct file *f, const void *from, size_t len, uint64_t *pos)
{
    if (len && (f->flags & O_APPEND)) {
        *pos = f->inode->size;
    }
    int64_t n = reg_write(f->inode, from, len, *pos);
    if (n > 0) {
        *pos += (uint64_t)n;
    }
    return n;
}

const struct file_ops regular_ops = {
    .name = "file",
    .seekable = true,
    .read = regular_read,
    .write = regular_write,
};
