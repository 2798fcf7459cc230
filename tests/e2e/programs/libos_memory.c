/* libos_memory.c - a heap that grows to argv[1] MiB by little steps once the input is there, shrinks and grows
 * again, beside mappings that come and go: each page is zero when it is had and keeps what is written. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, STEP = 33 * PAGE, MAPPED = 1 << 20 };

static void write_pages(char *from, size_t len)
{
    for (char *p = from; p < from + len; p += PAGE) {
        if (*(volatile uint64_t *)p || *(volatile uint64_t *)(p + PAGE - 8)) {
            printf("the page at %p is not zero\n", (void *)p);
            exit(1);
        }
        *(volatile uint64_t *)p = (uintptr_t)p;
    }
}

static void check_pages(char *from, size_t len)
{
    for (char *p = from; p < from + len; p += PAGE) {
        if (*(volatile uint64_t *)p != (uintptr_t)p) {
            printf("the page at %p is another's\n", (void *)p);
            exit(1);
        }
    }
}

static char *map(void)
{
    char *p = mmap(NULL, MAPPED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        printf("no mapping\n");
        exit(1);
    }
    write_pages(p, MAPPED);
    return p;
}

int main(int argc, char **argv)
{
    size_t steps = (argc > 1 ? strtoul(argv[1], NULL, 10) : 64) * 1024 * 1024 / STEP;
    char c, *kept;
    if (read(0, &c, 1) < 0) {
        return 1;
    }
    kept = map();
    char *start = sbrk(0);
    start += -(uintptr_t)start & (PAGE - 1);
    brk(start);
    for (size_t i = 0; i < steps; i++) {
        char *at = sbrk(STEP);
        if (at == (char *)-1) {
            printf("no heap at step %zu\n", i);
            return 1;
        }
        write_pages(at, STEP);
        if (i % 32 == 0) {
            munmap(map(), MAPPED);
        }
        if (i % 64 == 0) { /* down and up again */
            sbrk(-STEP / 2 / PAGE * PAGE);
            write_pages(sbrk(STEP / 2 / PAGE * PAGE), STEP / 2 / PAGE * PAGE);
        }
    }
    check_pages(start, steps * STEP);
    check_pages(kept, MAPPED);
    madvise(kept, MAPPED, MADV_DONTNEED);
    write_pages(kept, MAPPED);
    puts("clean");
    return 0;
}
