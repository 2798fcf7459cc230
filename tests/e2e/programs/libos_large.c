/* libos_large.c - a program with 6 MiB that are only read, of which pages are changed one by one, before its request
 * and behind it. Prints sums of what it finds. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES = 1536, PAGE = 4096 };

/* Each page begins with its number. */
extern const unsigned char large[PAGES * PAGE];
__asm__(".pushsection .rodata\n"
        ".balign 4096\n"
        ".globl large\n"
        "large:\n"
        ".set number, 1\n"
        ".rept 1536\n"
        ".quad number\n"
        ".zero 4088\n"
        ".set number, number + 1\n"
        ".endr\n"
        ".size large, . - large\n"
        ".type large, @object\n"
        ".popsection");

static unsigned long sum(void)
{
    const volatile unsigned long *at = (const volatile unsigned long *)large;
    unsigned long s = 0;
    for (int i = 0; i < PAGES; i++, at += PAGE / sizeof(*at)) {
        s = s * 31 + *at;
    }
    return s;
}

static unsigned char *page(int n)
{
    return (unsigned char *)(large + (long)n * PAGE);
}

static void change(int n, int to)
{
    if (mprotect(page(n), PAGE, PROT_READ | PROT_WRITE) != 0) {
        puts("mprotect failed");
    }
    memset(page(n), to, 8);
}

int main(void)
{
    char line[64];
    change(700, 1);
    printf("%lx\n", sum());
    if (!fgets(line, sizeof(line), stdin)) {
        return 1;
    }
    printf("%lx ", sum());
    change(3, line[0]);
    change(1530, line[0]);
    printf("%lx ", sum());
    if (mmap(page(1000), 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
             -1, 0) != page(1000)) {
        puts("mmap failed");
    }
    page(1001)[0] = 9;
    printf("%lx %zd\n", sum(), write(1, page(1200), 0));
    return 0;
}
