/* libos_copy.c - pages of a file that were read become copies when they may be written, and are mapped
 * over, as on Linux. Prints what it sees; on the host the same comes out. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 4, RW = PROT_READ | PROT_WRITE };

static volatile char *map(void *at, int fd, int prot, int flags, off_t offset)
{
    char *p = mmap(at, PAGES * PAGE, prot, flags, fd, offset);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

static unsigned sum(const volatile char *p)
{
    unsigned s = 0;
    for (int i = 0; i < PAGES * PAGE; i++) {
        s = s * 31 + (unsigned char)p[i];
    }
    return s;
}

static void protect(volatile char *p, size_t len, int prot)
{
    if (mprotect((void *)p, len, prot) < 0) {
        perror("mprotect");
        exit(1);
    }
}

int main(void)
{
    char line[64] = "";
    int fd = open("/proc/self/exe", O_RDONLY);
    volatile char *p = map(NULL, fd, PROT_READ, MAP_PRIVATE, 0);
    volatile char *other = map(NULL, fd, PROT_READ, MAP_PRIVATE, 0);
    unsigned whole = sum(p);
    if (!fgets(line, sizeof(line), stdin)) {
        return 1;
    }
    protect(p + PAGE, PAGE, RW);
    unsigned same = sum(p);
    strcpy((char *)p + PAGE, line);
    int changed = sum(p) != whole, apart = sum(other) == whole;
    protect(p + PAGE, PAGE, PROT_READ);
    printf("%d %d %d %s", same == whole, changed, apart, (const char *)p + PAGE);
    protect(other, PAGES * PAGE, RW);
    ssize_t got = pread(fd, (void *)(other + 2 * PAGE), 64, 0); /* a call writes to a copy */
    printf("%zd %d\n", got, !memcmp((void *)other, (void *)(other + 2 * PAGE), 64));
    map((void *)p, -1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0);
    printf("%u\n", sum(p));
    map((void *)p, fd, RW, MAP_PRIVATE | MAP_FIXED, 0);
    printf("%d\n", sum(p) == whole);
    /* The same page of memory at two places, over a reservation that is accessible. */
    int memory = memfd_create("ring", 0);
    volatile char *ring = mmap(NULL, 2 * PAGES * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ftruncate(memory, PAGES * PAGE);
    map((void *)ring, memory, RW, MAP_SHARED | MAP_FIXED, 0);
    map((void *)(ring + PAGES * PAGE), memory, RW, MAP_SHARED | MAP_FIXED, 0);
    strcpy((char *)ring + PAGES * PAGE - 2, "over");
    printf("%.2s %s\n", (const char *)ring, (const char *)ring + PAGES * PAGE - 2);
    return 0;
}
