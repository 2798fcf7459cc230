/* elf.c - see elf.h. Format: System V ABI, chapters 4 and 5, and its x86-64 supplement. */
#include "task/elf.h"

#include <linux/elf.h>
#include <linux/mman.h>

#include "mm.h"

#define PROGRAM_BASE                                                                               \
    0x0000555555554000ull /* of position-independent programs, as Linux without chance, or up to 2 MiB above */
#define PHDRS_MAX 64
#define ADDR_MAX  0x00007ffffffff000ull

struct load {
    struct file *file;
    const char *name;
    Elf64_Ehdr header;
    Elf64_Phdr phdrs[PHDRS_MAX];
    uint64_t from, to, align; /* addresses of the segments, in the file's own terms */
};

static int refuse(const struct load *l, const char *why)
{
    klog("%s cannot be run: %s", l->name, why);
    return -ENOEXEC;
}

static int read_headers(struct load *l)
{
    Elf64_Ehdr *h = &l->header;
    int64_t got = file_read_at(l->file, h, sizeof(*h), 0);
    if (got < SELFMAG || memcmp(h->e_ident, ELFMAG, SELFMAG)) {
        return refuse(l, "it is neither an ELF file nor a script that begins with #!");
    }
    if (got < (int64_t)sizeof(*h) || h->e_ident[EI_CLASS] != ELFCLASS64 ||
        h->e_ident[EI_DATA] != ELFDATA2LSB || h->e_machine != EM_X86_64) {
        return refuse(l, "it is for another machine than x86-64");
    }
    if (h->e_type != ET_EXEC && h->e_type != ET_DYN) {
        return refuse(l, "it is neither an executable nor a shared object");
    }
    if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phnum == 0 || h->e_phnum > PHDRS_MAX) {
        return refuse(l, "its number of program headers is not within 1 to 64");
    }
    int64_t size = (int64_t)(h->e_phnum * sizeof(Elf64_Phdr));
    if (file_read_at(l->file, l->phdrs, (size_t)size, h->e_phoff) != size) {
        return refuse(l, "its program headers are cut off");
    }
    return 0;
}

static int check_segment(struct load *l, const Elf64_Phdr *p)
{
    uint64_t end, file_end;
    if (__builtin_add_overflow(p->p_vaddr, p->p_memsz, &end) || end > ADDR_MAX ||
        p->p_filesz > p->p_memsz || (p->p_vaddr - p->p_offset) & PAGE_MASK) {
        return refuse(l, "a segment lies where none can be");
    }
    if (__builtin_add_overflow(p->p_offset, p->p_filesz, &file_end) ||
        file_end > file_size(l->file)) {
        return refuse(l, "the file is cut off");
    }
    if ((p->p_flags & (PF_W | PF_X)) == (PF_W | PF_X)) {
        return refuse(l, "a segment is writable and executable at once");
    }
    if (page_down(p->p_vaddr) < l->to && l->to) {
        return refuse(l, "its segments overlap, or are not in ascending order");
    }
    l->from = l->to ? l->from : page_down(p->p_vaddr);
    l->to = page_up(end);
    l->align = p->p_align > l->align && !(p->p_align & (p->p_align - 1)) ? p->p_align : l->align;
    return 0;
}

static int check_segments(struct load *l)
{
    l->align = PAGE_SIZE;
    for (unsigned i = 0; i < l->header.e_phnum; i++) {
        const Elf64_Phdr *p = &l->phdrs[i];
        if (p->p_type != PT_LOAD || p->p_memsz == 0) {
            continue;
        }
        int r = check_segment(l, p);
        if (r < 0) {
            return r;
        }
    }
    if (l->to == 0) {
        return refuse(l, "it has no segment to load");
    }
    if (l->header.e_entry < l->from || l->header.e_entry >= l->to) {
        return refuse(l, "its entry lies outside its segments");
    }
    if (l->header.e_type == ET_EXEC && l->from < UNID_LIBOS_END) {
        return refuse(l, "it is linked below 0x400000, where the library OS is");
    }
    return 0;
}

static int prot_of(const Elf64_Phdr *p)
{
    return (p->p_flags & PF_R ? PROT_READ : 0) | (p->p_flags & PF_W ? PROT_WRITE : 0) |
           (p->p_flags & PF_X ? PROT_EXEC : 0);
}

static int map_segment(const struct load *l, const Elf64_Phdr *p, uint64_t bias)
{
    uint64_t start = bias + page_down(p->p_vaddr), data_end = bias + p->p_vaddr + p->p_filesz;
    uint64_t file_end = page_up(data_end), end = page_up(bias + p->p_vaddr + p->p_memsz);
    int prot = prot_of(p), flags = MAP_PRIVATE | MAP_FIXED;
    int64_t r;
    if (p->p_filesz > 0) {
        r = mm_mmap(start, file_end - start, prot, flags, l->file, page_down(p->p_offset));
        if (r < 0) {
            return (int)r;
        }
        if (p->p_memsz > p->p_filesz && prot & PROT_WRITE) {
            mm_zero(data_end, file_end - data_end);
        }
        start = file_end;
    }
    if (end > start) {
        r = mm_mmap(start, end - start, prot, flags | MAP_ANONYMOUS, NULL, 0);
        if (r < 0) {
            return (int)r;
        }
    }
    return 0;
}

static int take_interpreter(const struct load *l, const Elf64_Phdr *p, struct elf_image *ret)
{
    if (p->p_filesz < 2 || p->p_filesz > sizeof(ret->interpreter) ||
        file_read_at(l->file, ret->interpreter, p->p_filesz, p->p_offset) != (int64_t)p->p_filesz ||
        ret->interpreter[p->p_filesz - 1] != '\0') {
        return refuse(l, "the name of its interpreter cannot be read");
    }
    ret->has_interpreter = true;
    return 0;
}

static int map_all(struct load *l, int role, struct elf_image *ret)
{
    const Elf64_Ehdr *h = &l->header;
    for (unsigned i = 0; i < h->e_phnum; i++) {
        const Elf64_Phdr *p = &l->phdrs[i];
        int r = 0;
        if (p->p_type == PT_LOAD && p->p_memsz > 0) {
            r = map_segment(l, p, ret->bias);
            if (h->e_phoff >= p->p_offset && h->e_phoff < p->p_offset + p->p_filesz) {
                ret->phdrs = ret->bias + p->p_vaddr + (h->e_phoff - p->p_offset);
            }
        } else if (p->p_type == PT_INTERP && role == ELF_PROGRAM) {
            r = take_interpreter(l, p, ret);
        } else if (p->p_type == PT_TLS && p->p_memsz > frames_free() * PAGE_SIZE) {
            r = refuse(l, "its thread-local storage is larger than the memory");
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* Behind the last page, in the file's own terms; stubs stand behind the segments. */
static uint64_t end_of(const struct load *l)
{
    struct file_stubs stubs;
    uint64_t end = file_stubs(l->file, &stubs) ? stubs.vaddr + page_up(stubs.size) : 0;
    return end > l->to ? end : l->to;
}

int elf_load(struct file *file, int role, struct elf_image *ret)
{
    struct load *l = kalloc(sizeof(*l));
    if (!l) {
        return -ENOMEM;
    }
    l->file = file;
    l->name = file_path(file);
    memset(ret, 0, sizeof(*ret));
    int r = read_headers(l);
    r = r < 0 ? r : check_segments(l);
    if (r == 0 && l->header.e_type == ET_DYN) {
        uint64_t base = PROGRAM_BASE;
        if (role == ELF_INTERPRETER) {
            base = mm_pick(end_of(l) - l->from, 0, l->align);
        } else if (l->align == PAGE_SIZE) {
            base = mm_beside(base, file_frame(l->file, 0));
        }
        ret->bias = ((base + l->align - 1) & ~(l->align - 1)) - (l->from & ~(l->align - 1));
    }
    if (r == 0) {
        r = map_all(l, role, ret);
        ret->entry = ret->bias + l->header.e_entry;
        ret->end = ret->bias + end_of(l);
        ret->phnum = l->header.e_phnum;
        if (r == -ENOMEM) {
            klog("%s cannot be run: it does not fit into %lu MiB of memory", l->name,
                 frames_total() / 256);
        }
    }
    kfree(l);
    return r;
}
