/* file.h - writing to files in full. Any thread. */
#ifndef UNID_COMMON_FILE_H
#define UNID_COMMON_FILE_H

#include <stddef.h>
#include <stdint.h>

/* Writes all of `data`, where the file stands or, the second, at `at`; goes on after signals and partial
 * writes. 0, or a negative errno of write(2): some of it may have been written. */
int un_write_all(int fd, const void *data, size_t len);
int un_pwrite_all(int fd, const void *data, size_t len, uint64_t at);

#endif
