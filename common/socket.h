/* socket.h - what stream sockets are asked in several places. */
#ifndef UNID_COMMON_SOCKET_H
#define UNID_COMMON_SOCKET_H

#include <sys/socket.h>

/* The close of `fd` that follows resets the connection: the peer learns that it broke, and takes nothing for
 * an orderly end. */
static inline void un_socket_break(int fd)
{
    static const struct linger now = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

#endif
