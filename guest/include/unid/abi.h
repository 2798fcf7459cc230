/* abi.h - the contract between a ring-3 guest and its host, version 1.3.
 *
 * The machine. One x86-64 CPU in 64-bit mode at privilege level 3, for ever: no kernel mode, no
 * interrupts, no devices, no system calls. One address space, virtual = physical, paging on.
 * Nothing is mapped below UNID_BOOT_ADDR, so that a null pointer faults; the image's segments carry
 * their ELF permissions; heap and stack are never executable. A fault ends the machine; the host
 * learns vector, error code, instruction and fault address.
 *
 * At entry: rdi = UNID_BOOT_ADDR; rsp = boot.stack_top - 8, where a zero stands (aligned as after a
 * call); all other general registers zero; direction flag clear; x87 as after FNINIT, MXCSR 0x1f80.
 * SSE2 may be used; AVX where CPUID shows OSXSAVE, and XGETBV the state as enabled.
 *
 * The host is asked for what it alone has, by a call: the guest fills `struct unid_call`, raises
 * `seq`, rings the doorbell, and waits until `ack` equals `seq`. Ringing is one OUT of a byte (any
 * value) to boot.doorbell_port, or one 4-byte store to boot.doorbell_addr, as boot.doorbell_kind
 * says. On some drivers the call is done when the doorbell instruction returns, on others later:
 * the guest always waits for `ack` (with PAUSE).
 *
 * No pointer ever crosses the border. Data moves through three windows, at addresses which the host
 * chose: request (host to guest), response and log (guest to host). The guest says only lengths,
 * which the host checks.
 *
 *     guest                                     host
 *     NEXT   ------------------------------->   (a snapshot may be taken here)
 *            <----- request head + first body bytes in the request window, time, entropy, id
 *     READ   ------------------------------->
 *            <----- the next body bytes; UNID_CALL_EOF behind the last
 *     WRITE  response_len bytes ------------>   (the first time: head_len bytes of head in front)
 *     DONE   the last response bytes, status ->  the machine ends; ack never comes
 *
 * Bytes in the log window travel with any call (log_len); LOG carries nothing else. The host also
 * reads them when the machine has ended, so that a message written before a fault is not lost.
 *
 * An image whose note says UNID_NOTE_PAGING arranges its own address space (since 1.1): see "Paging
 * images" below.
 *
 * Versions: a guest built for major M runs on any host with major M; fields are only ever added, in
 * reserved space or at the end, with a new minor. docs/guest-abi.md tells the same at more length.
 */
#ifndef UNID_ABI_H
#define UNID_ABI_H

#ifdef __ASSEMBLER__
#define UNID_U32(x) x
#define UNID_U64(x) x
#else
#include <stddef.h>
#include <stdint.h>
#define UNID_U32(x) x##u
#define UNID_U64(x) x##ull
#endif

#define UNID_ABI_MAGIC UNID_U64(0x313069626144494e) /* "NIDabi01" in memory order */
#define UNID_ABI_MAJOR 1
#define UNID_ABI_MINOR 3

/* The ELF note that marks an SDK image: owner "unid", this type, descriptor {u16 major, u16 minor,
 * u32 flags}. */
#define UNID_NOTE_OWNER  "unid"
#define UNID_NOTE_TYPE   1
#define UNID_NOTE_PAGING 1 /* note flag: the image writes its own page tables, see below */

/* Guest addresses, physical = virtual. The images' segments lie in [UNID_IMAGE_MIN, memory end). */
#define UNID_BOOT_ADDR UNID_U64(0x100000) /* struct unid_boot, one page */
#define UNID_CALL_ADDR UNID_U64(0x101000) /* struct unid_call, one page */
#define UNID_STRINGS_ADDR                                                                          \
    UNID_U64(0x102000) /* arguments, then environment: NUL-terminated, packed */
#define UNID_STRINGS_SIZE  UNID_U64(0x00e000)
#define UNID_LOG_ADDR      UNID_U64(0x110000)
#define UNID_LOG_SIZE      UNID_U64(0x010000)
#define UNID_REQUEST_ADDR  UNID_U64(0x120000)
#define UNID_REQUEST_SIZE  UNID_U64(0x040000)
#define UNID_RESPONSE_ADDR UNID_U64(0x160000)
#define UNID_RESPONSE_SIZE UNID_U64(0x040000)
#define UNID_NET_ADDR      UNID_U64(0x1a0000) /* bytes of connections, both directions (1.1) */
#define UNID_NET_SIZE      UNID_U64(0x010000)
#define UNID_CHANNEL_END   UNID_U64(0x1b0000) /* [BOOT_ADDR, CHANNEL_END): shared with the host */
#define UNID_IMAGE_MIN     UNID_U64(0x200000)
#define UNID_STACK_SIZE    UNID_U64(0x040000) /* below boot.stack_top; one unmapped page under it */

/* Paging images (1.1). All of guest memory from UNID_IMAGE_MIN on stands a second time at
 * UNID_DIRECT_MAP + its physical address, readable and writable, never executable: free frames, the
 * image's own segments, and the page tables. Segments linked below the direct map lie at physical =
 * virtual; segments linked into it lie at the physical address that it gives them and are mapped
 * nowhere else. The boot stack stands in the direct map (boot.stack_top is virtual). Nothing else
 * is mapped: [heap_start, heap_end) are physical addresses of free, zeroed frames, and the image
 * maps them where it likes, by writing entries (present, user, and 4 KiB leaves) below those of
 * boot.page_root, the physical address of the top table. It cannot flush the TLB: an address whose
 * entry was present once keeps its frame, or is not used again.
 *
 * Frames that were never touched cost the host nothing, and each costs a fault when it is. When boot.flags
 * has UNID_BOOT_FILL, an 8-byte store of the physical address of a piece of UNID_PIECE_SIZE, aligned to
 * its size, to boot.doorbell_addr + UNID_FILL_OFFSET makes the host give all of its memory at once. It
 * is no call, is answered by nothing, and changes nothing that the guest can see.
 *
 * The direct map is one entry of the top table, of the upper half, but not its first: a KVM that
 * runs guests in the host's own ring 3 (PVM) keeps that one for itself. */
#define UNID_DIRECT_MAP UNID_U64(0xffffc00000000000)
#define UNID_PIECE_SIZE UNID_U64(0x200000)

/* The longest heads. A request head leaves at least half of its window to the body. */
#define UNID_REQUEST_HEAD_MAX  (UNID_REQUEST_SIZE / 2)
#define UNID_RESPONSE_HEAD_MAX UNID_U64(0x4000)

/* boot.flags */
#define UNID_BOOT_REQUEST_READY 1  /* the first NEXT is answered already: do not ring for it */
#define UNID_BOOT_FSGSBASE      4  /* WRFSBASE and its kin may be used (1.1) */
#define UNID_BOOT_FILL          8  /* memory can be had in pieces (1.1) */
#define UNID_BOOT_ASK_FIRST     16 /* a library OS rings for NEXT before its program's start (1.3) */
#define UNID_FILL_OFFSET        8  /* from boot.doorbell_addr */

/* boot.interface (1.1): how the program wants its request and gives its response. */
#define UNID_INTERFACE_SDK    0 /* heads as this file defines them */
#define UNID_INTERFACE_FILTER 1 /* body in, body out; the head is as for SDK */
/* Request head: the meta-variables of RFC 3875 and the function's environment as NUL-terminated
 * "NAME=value" strings. Response: the program's output, CGI header included, in the body bytes. */
#define UNID_INTERFACE_CGI 2
/* Request head: the head of an HTTP/1.1 message, final empty line included. The body follows as it
 * is, or, when content_length is UNID_LENGTH_UNKNOWN, to be framed as chunks by the guest. Response:
 * an HTTP/1.1 message in the body bytes; the host ends the machine when the message is complete. */
#define UNID_INTERFACE_HTTP 3
/* No head: the body bytes of request and response are the two directions of a connection, each with an
 * end of its own. Only machine images speak it, over their network; no guest of this file is told it. */
#define UNID_INTERFACE_TCP 4

/* boot.doorbell_kind */
#define UNID_DOORBELL_PORT   1
#define UNID_DOORBELL_MEMORY 2

/* call.op */
#define UNID_OP_NEXT  1 /* wait for the request */
#define UNID_OP_READ  2 /* refill the request window with body bytes */
#define UNID_OP_WRITE 3 /* take response_len bytes from the response window */
#define UNID_OP_DONE  4 /* take the rest and end; status 0 is success */
#define UNID_OP_LOG   5 /* take log_len bytes from the log window */
/* Since 1.1. Each of the NET calls is answered at once with net_result: >= 0, or a negative Linux
 * errno (-EAGAIN: not now; the bits of net_readable and net_writable say when). Connections are
 * named by handles 0..63. */
#define UNID_OP_WAIT 6 /* until wait_ns have passed, or a bit of net_* became set */
#define UNID_OP_NET_RESOLVE                                                                        \
    7                      /* may the name in the window (net_len bytes) be reached? 0 or error */
#define UNID_OP_NET_OPEN 8 /* begin a connection to the "host:port" in the window: its handle */
#define UNID_OP_NET_SEND 9 /* net_len bytes of the window: the number taken */
#define UNID_OP_NET_RECV                                                                           \
    10 /* at most net_len bytes: the number put into the window, 0 at the end */
#define UNID_OP_NET_SHUT  11 /* no more will be sent */
#define UNID_OP_NET_CLOSE 12

/* call.flags */
#define UNID_CALL_EOF 1 /* no body bytes follow those in the window */

/* call.content_length when the client did not declare one */
#define UNID_LENGTH_UNKNOWN UNID_U64(0xffffffffffffffff)

#define UNID_ID_SIZE      32 /* the invocation id, NUL-padded ASCII */
#define UNID_ENTROPY_SIZE 64

#ifndef __ASSEMBLER__

/* What a machine is told once, at its start. Written by the host before entry. */
struct unid_boot {
    uint64_t magic; /* UNID_ABI_MAGIC */
    uint16_t major, minor;
    uint32_t size; /* bytes of this struct that the host filled */
    uint32_t flags;
    uint32_t doorbell_kind;
    uint32_t doorbell_port;
    uint32_t argc; /* strings at UNID_STRINGS_ADDR, argc then envc of them */
    uint32_t envc;
    uint32_t strings_len; /* bytes in use there */
    uint64_t doorbell_addr;
    uint64_t memory_end; /* first address behind the guest's memory */
    uint64_t image_start, image_end;
    uint64_t heap_start, heap_end; /* zeroed, readable and writable, page-aligned */
    uint64_t stack_top;            /* page-aligned: the end of the stack */
    uint64_t tsc_hz;               /* rate of RDTSC, 0 when not known */
    uint64_t page_root;            /* paging images: physical address of the top page table (1.1) */
    uint32_t interface;            /* UNID_INTERFACE_* (1.1) */
    uint32_t reserved32;
    uint64_t reserved[14];
};

/* The one call in flight. Guest-written fields first, host-written fields on cache lines of their
 * own. */
struct unid_call {
    /* guest to host */
    uint32_t seq; /* raised by one for each call, last of all fields */
    uint32_t op;
    uint32_t response_len; /* bytes valid in the response window, head included */
    uint32_t head_len; /* of which this many are the response head; only in the first WRITE/DONE */
    uint32_t log_len;  /* bytes valid in the log window; zeroed by the host when it took them */
    int32_t status;    /* DONE: exit status */
    uint32_t net_handle; /* SEND, RECV, SHUT, CLOSE */
    uint32_t net_len;    /* bytes in the net window, or room there */
    uint32_t guest_reserved0[2];
    uint64_t wait_ns; /* WAIT */
    uint32_t guest_reserved[4];
    /* host to guest; valid once ack == seq */
    uint32_t ack;
    uint32_t flags;
    uint32_t request_head_len; /* NEXT: bytes of request head at the window's start */
    uint32_t request_len;      /* NEXT and READ: body bytes behind the head */
    uint64_t content_length;   /* NEXT */
    uint64_t wall_ns;          /* NEXT: nanoseconds since 1970-01-01 UTC */
    uint64_t
        deadline_ns;    /* NEXT: nanoseconds that the invocation may take from now; 0 = no limit */
    int32_t net_result; /* NET calls */
    uint32_t host_reserved;
    uint64_t net_readable; /* bit n: RECV of handle n would not say -EAGAIN; valid after any call */
    uint64_t net_writable; /* likewise SEND; also set when a connection was made or refused */
    uint8_t invocation_id[UNID_ID_SIZE]; /* NEXT */
    uint8_t reserved[32];
    uint8_t
        entropy[UNID_ENTROPY_SIZE]; /* NEXT: fresh random bytes, to seed the guest's generator */
};

/* What the host reads when the machine has ended, however it ended: the library OS keeps it up to
 * date as it runs (1.1). At UNID_REPORT_ADDR, in the page of the call. */
#define UNID_REPORT_ADDR    (UNID_CALL_ADDR + 0x400)
#define UNID_REPORT_CALLS   32
#define UNID_REPORT_NUMBERS 512 /* of Linux system calls that are counted one by one */
#define UNID_REPORT_RANDOM  1   /* flags: random bytes were drawn before the first NEXT */
struct unid_report {
    uint64_t calls;             /* system calls made */
    uint32_t unsupported_count; /* entries in use below */
    uint32_t flags;             /* UNID_REPORT_* (1.3) */
    struct {
        uint32_t number; /* of the x86-64 Linux system call */
        uint32_t times;
    } unsupported[UNID_REPORT_CALLS];   /* those that were answered by ENOSYS */
    uint32_t made[UNID_REPORT_NUMBERS]; /* of each number, modulo 2^32 (1.2) */
};
_Static_assert(0x400 + sizeof(struct unid_report) <= 0x1000, "the report leaves its page");

/* The request head stays at the start of its window for good: body bytes, of NEXT and of every
 * READ, stand behind it, at UNID_REQUEST_ADDR + request_head_len, each time from there.
 *
 * Heads are text. Request: "METHOD SP target CRLF", then "name: value CRLF" for each field.
 * Response: "status CRLF" (three digits, 200 to 599), then fields likewise, no empty line at the
 * end of either. An absent response head means 200. The host drops fields that frame or concern the
 * connection. */

#define UNID_LAYOUT(type, field, at)                                                               \
    _Static_assert(offsetof(struct type, field) == (at), #type "." #field " moved")
UNID_LAYOUT(unid_boot, flags, 16);
UNID_LAYOUT(unid_boot, strings_len, 36);
UNID_LAYOUT(unid_boot, doorbell_addr, 40);
UNID_LAYOUT(unid_boot, heap_start, 72);
UNID_LAYOUT(unid_boot, tsc_hz, 96);
UNID_LAYOUT(unid_boot, page_root, 104);
UNID_LAYOUT(unid_call, wait_ns, 40);
UNID_LAYOUT(unid_call, net_result, 104);
UNID_LAYOUT(unid_call, ack, 64);
UNID_LAYOUT(unid_call, content_length, 80);
UNID_LAYOUT(unid_call, invocation_id, 128);
UNID_LAYOUT(unid_call, entropy, 192);
UNID_LAYOUT(unid_report, made, 272);
_Static_assert(sizeof(struct unid_boot) == 232, "struct unid_boot changed size");
_Static_assert(sizeof(struct unid_call) == 256, "struct unid_call changed size");
#undef UNID_LAYOUT

#endif /* __ASSEMBLER__ */
#endif
