/* limits.h - every bound on what comes from outside, in one place: the name, the default, and the
 * configuration key that changes it, or the reason why nothing does. Durations are in the unit of
 * the name. */
#ifndef UNID_COMMON_LIMITS_H
#define UNID_COMMON_LIMITS_H

/* HTTP */
#define LIMIT_HTTP_HEAD_BYTES   (32 * 1024) /* request line and fields; http.max_head_bytes */
#define LIMIT_HTTP_FIELDS       100        /* header fields a message; as nginx and Node bound it */
#define LIMIT_HTTP_TARGET_BYTES (8 * 1024) /* request target; RFC 9112 section 3 advises 8000 */
#define LIMIT_HTTP_JSON_BYTES   (1 << 20)  /* body of a REST call that is JSON */
#define LIMIT_HTTP_BUFFER_BYTES                                                                    \
    (256 * 1024)                     /* buffered each way a connection before back-pressure */
#define LIMIT_HTTP_CONNECTIONS 16384 /* http.max_connections */
#define LIMIT_HTTP_REFUSING    128   /* beyond those, being told 503; more wait in the kernel */
#define LIMIT_HTTP_IDLE_MS     60000 /* between requests; http.idle_timeout_ms */
#define LIMIT_HTTP_HEAD_MS     15000 /* for the head to arrive whole; http.head_timeout_ms */
#define LIMIT_HTTP_STALL_MS    30000 /* without a byte moving in a body; http.stall_timeout_ms */
#define LIMIT_HTTP_PIPELINE    16    /* of one connection in one turn of the loop */

/* Connections to functions that speak a protocol of their own */
#define LIMIT_TCP_CONNECTIONS    16384 /* at once, all functions together; more wait in the kernel */
#define LIMIT_TCP_HALF_CLOSED_MS 300000 /* without a byte moving, when one direction has ended */
#define LIMIT_TCP_DRAIN_QUIET_MS 2000 /* likewise when unid ends, and nothing has been asked for */
#define LIMIT_TCP_KEEPALIVE_S    60   /* silence before the kernel asks whether a client is there */

/* Images and functions */
#define LIMIT_IMAGE_BYTES          (4ull << 30) /* images.max_bytes */
#define LIMIT_ELF_NOTES_BYTES      (64 << 10)   /* kept of notes that lie behind a file's head */
#define LIMIT_UPLOAD_BUFFER_BYTES  (4 << 20)    /* of one upload, received but not stored yet */
#define LIMIT_CACHE_BYTES          (4ull << 30) /* images.max_cache_bytes */
#define LIMIT_FUNCTION_ARGS        256 /* the guest's string area bounds them all the same */
#define LIMIT_FUNCTION_STRINGS     (48 * 1024) /* args and env of one version; UNID_STRINGS_SIZE */
#define LIMIT_FUNCTION_MEMORY_MIB  65536
#define LIMIT_FUNCTION_MEMORY_MIN  2      /* the guest's channel and one page of image */
#define LIMIT_FUNCTION_TIMEOUT_MS  900000 /* 15 minutes, as AWS Lambda */
#define LIMIT_FUNCTION_CONCURRENCY 10000
#define LIMIT_FUNCTION_EGRESS      64   /* rules of one version */
#define LIMIT_FUNCTION_PUBLISH     16   /* ports of one version */
#define LIMIT_FUNCTION_CACHE       256  /* versions kept in memory */
#define LIMIT_PAGE_ITEMS           1000 /* rows of a listing's page */

/* Root file systems of Linux programs */
#define LIMIT_ROOTFS_BYTES      (2ull << 30) /* unpacked; a machine's memory bounds them as well */
#define LIMIT_ROOTFS_FILES      200000       /* names; each costs some 100 bytes in every machine */
#define LIMIT_ROOTFS_NAMES      (64 << 20) /* their bytes and those of links, replaced ones included */
#define LIMIT_ROOTFS_ENTRIES    400000     /* of an archive, in which a name may come again */
#define LIMIT_ROOTFS_ELF_BYTES  (512 << 20) /* one program or library: held in memory, rewritten */
#define LIMIT_PROGRAM_TLS_BYTES (16 << 20)  /* thread-local storage; each thread gets it */
#define LIMIT_ROOTFS_JSON       (64 << 10)  /* .unid.json */

/* What a function gets whose configuration does not say */
#define DEFAULT_FUNCTION_MEMORY_MIB  64
#define DEFAULT_FUNCTION_TIMEOUT_MS  30000
#define DEFAULT_FUNCTION_CONCURRENCY 100

/* Invocations */
#define LIMIT_REQUEST_BODY_BYTES     (1ull << 30) /* limits.max_request_bytes */
#define LIMIT_RESPONSE_BODY_BYTES    (1ull << 30) /* limits.max_response_bytes */
#define LIMIT_ASYNC_BODY_BYTES       (6 << 20) /* kept in the database; as AWS Lambda's payload */
#define LIMIT_LOG_BYTES              (256 * 1024)  /* of one invocation; limits.max_log_bytes */
#define LIMIT_LOG_ROWS               100000        /* invocations whose log is kept */
#define LIMIT_CALLS                  (16ull << 20) /* guest calls of one invocation */
#define LIMIT_NET_NAME_BYTES         261 /* "host:port" that a guest names: 255, a colon, five digits */
#define LIMIT_RESPONSE_HEAD_BYTES    (16 * 1024) /* head that a guest may send */
#define LIMIT_RESPONSE_TRAILER_BYTES (16 * 1024) /* behind a chunked body of a program; not kept */
#define LIMIT_CGI_BODY_BYTES                                                                       \
    (256 * 1024)            /* of a body without a length, held until CONTENT_LENGTH is known */
#define LIMIT_CALL_DEPTH 16 /* functions that call each other by private names, in a row */
#define LIMIT_EGRESS_HANDLES                                                                       \
    64 /* connections of one VM at once; the guest's sets have so many bits */
#define LIMIT_EGRESS_OPENS      4096  /* of one invocation, refused ones among them */
#define LIMIT_EGRESS_LOG_LINES  16    /* about refused connections, in one invocation's log */
#define LIMIT_EGRESS_CONNECT_MS 10000 /* for one address to answer, when the name has more */
#define LIMIT_MACHINE_CONNECTIONS                                                                  \
    256 /* to the outside, of one machine at once; two descriptors each */
#define LIMIT_EGRESS_RESOLVERS   8     /* names looked up at once, all functions together */
#define LIMIT_EGRESS_RESOLVES    1024  /* waiting for that */
#define LIMIT_QUEUE_FUNCTION     1000  /* waiting requests a function; limits.queue_per_function */
#define LIMIT_QUEUE_TOTAL        10000 /* limits.queue_total */
#define LIMIT_QUEUE_WAIT_MS      30000 /* limits.queue_wait_ms */
#define LIMIT_BODY_BUFFER_BYTES  (256 * 1024) /* request body held while its VM is not there yet */
#define LIMIT_BODY_BUFFERS_BYTES (64 << 20)   /* of all calls together; then each gets little */
#define LIMIT_RECEIPTS_PENDING   10000        /* not on disk yet; the oldest are given up */
#define LIMIT_LOGS_PENDING_BYTES (16 << 20)   /* likewise their logs */
#define LIMIT_RECEIPTS_ROWS      1000000      /* receipts.max_rows */
#define LIMIT_RECEIPTS_DAYS      7            /* receipts.max_days */

/* Requests of failed invocations, kept to be run again */
#define LIMIT_REPLAY_REQUEST_BYTES (64 * 1024) /* of one, and of its answer; replay.request_bytes */
#define LIMIT_REPLAY_TOTAL_BYTES   (64ull << 20) /* on disk; replay.total_bytes */
#define LIMIT_REPLAY_HOURS         72            /* replay.hours */
#define LIMIT_REPLAY_HELD_BYTES    (16 << 20) /* in memory, of calls that run: beyond, none is kept */
#define LIMIT_REPLAY_ANSWER_BYTES  (256 * 1024) /* of the second answer, for the comparison */
#define LIMIT_REPLAYS              16           /* under way at once */

/* Watching */
#define LIMIT_WATCH_CLIENTS    64        /* more are told 503 */
#define LIMIT_WATCH_RING       4096      /* events kept for slow clients and those that come back */
#define LIMIT_WATCH_RING_BYTES (2 << 20) /* of their text */
#define LIMIT_WATCH_KEEP_MS    300000    /* they are kept so long after the last client has left */
#define LIMIT_WATCH_BEAT_MS    15000     /* between signs of life */

/* The durable queue */
#define LIMIT_ASYNC_ROWS 10000000 /* accepted events that wait; the disk ends sooner */
#define LIMIT_ASYNC_ACCEPTING_BYTES                                                                \
    (128 << 20)                          /* in memory, on their way to the disk; one in any case */
#define LIMIT_ASYNC_BATCH           1000 /* events of one delivery */
#define LIMIT_ASYNC_RUNNING         64   /* attempts at once */
#define LIMIT_ASYNC_BYTES           (64 << 20) /* in memory for them: bodies, objects, answers */
#define LIMIT_ASYNC_ENDING          1000 /* attempts over, not on disk yet: then none is begun */
#define LIMIT_ASYNC_FIELDS_BYTES    (16 * 1024)
#define LIMIT_ASYNC_SOURCE_BYTES    4096
#define LIMIT_ASYNC_SEQUENCER_BYTES 128
#define LIMIT_ASYNC_URL_BYTES       2048
#define LIMIT_ASYNC_OBJECT_BYTES    (64 << 20) /* what a fetch brings */
#define LIMIT_ASYNC_ANSWER_BYTES    (6 << 20)  /* of a function, for a destination or a sink */
#define LIMIT_ASYNC_DEPTH           8          /* destinations one after the other */
#define LIMIT_ASYNC_RECENT          1000000 /* identities and sequencers; 8 to 16 bytes of memory */
#define LIMIT_ASYNC_INTERRUPTIONS   20      /* of one event: it may be what kills unid */
#define LIMIT_DEADLETTERS           1000000 /* the oldest are given up, and counted */

/* What an event gets whose policy does not say */
#define DEFAULT_ASYNC_ATTEMPTS        5
#define DEFAULT_ASYNC_AGE_MS          (6ull * 3600 * 1000) /* as AWS Lambda's asynchronous events */
#define DEFAULT_ASYNC_BACKOFF_MS      1000
#define DEFAULT_ASYNC_BACKOFF_MOST_MS 300000
#define DEFAULT_ASYNC_WINDOW_MS       (24ull * 3600 * 1000) /* of deduplication */

/* Events and triggers */
#define LIMIT_EVENT_BYTES       (1 << 20) /* of a delivery; the largest that AWS sends has 256 KiB */
#define LIMIT_EVENT_RECORDS     1000 /* of a delivery: each becomes an invocation of each function */
#define LIMIT_TRIGGERS          1000   /* held in memory with their configuration */
#define LIMIT_TRIGGER_FUNCTIONS 16     /* that one trigger fans out to */
#define LIMIT_TRIGGER_EVENTS    32     /* patterns of event names of one trigger */
#define LIMIT_TRIGGER_STRING    1024   /* of a trigger's strings; an S3 key has at most so many */
#define LIMIT_TRIGGER_TOPICS    16     /* SNS topics that are remembered a trigger */
#define LIMIT_CRON_CATCH_UP     100    /* missed runs of one trigger that are made up for */
#define LIMIT_OBJECT_MS         300000 /* for its transfer */

/* Snapshots of the kvm driver */
#define DEFAULT_MACHINE_IDLE_TIMEOUT_MS  60000
#define DEFAULT_MACHINE_READY_TIMEOUT_MS 30000
#define DEFAULT_MACHINE_SHELL_KEEP_MS    300000 /* made ahead for any service, and not used */
#define LIMIT_MACHINE_IDLE_TIMEOUT_MS    86400000
#define LIMIT_MACHINES                   1000       /* of one service */
#define LIMIT_VOLUMES                    1000       /* names and formats are held in memory */
#define LIMIT_VOLUME_MIB                 (16 << 20) /* 16 TiB, as large as a file of ext4 may be */
#define LIMIT_DISK_TIB                   4 /* in an image; what the overlay that keeps it as it is can name */
#define LIMIT_CMDLINE_BYTES              2048 /* of a machine image; Linux on x86 takes as many */
#define LIMIT_MACHINE_HANDOVER_MS                                                                  \
    10000 /* connections without requests to a machine whose volumes are wanted */
#define LIMIT_READY_CONSOLE_BYTES  200       /* of a line */
#define LIMIT_CONSOLES_BYTES       (8 << 20) /* console lines of all services that are not on disk yet */
#define LIMIT_SNAPSHOT_CACHE_BYTES (1ull << 30) /* on disk; the longest unused go first */
#define LIMIT_SNAPSHOT_OPEN        256          /* held open; a descriptor each */
#define LIMIT_SNAPSHOT_BUILD_MS    10000        /* for a guest to ask for its first request */
#define LIMIT_SNAPSHOT_LEAST_MS    1000 /* it has so long even when its timeout is shorter */

/* Shells */
#define LIMIT_POOL_SHELLS 64 /* pool.max */

#endif
