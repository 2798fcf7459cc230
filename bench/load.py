"""load.py - load generators: many connections at once, and many requests one after the other. Used by
the sections of bench/run and by the whole-daemon tests.
"""
import collections
import http.client
import resource
import select
import socket
import threading
import time

PATIENCE_S = 120


def raise_limit(files):
    """Open files of this process and of the daemons it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        hard = files  # only root may, and not everywhere
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))


def herd(address, path, count, patience_s=PATIENCE_S):
    """Opens so many connections, then sends a request on each, and gives how many answers had which
    status ("none": closed without one) and how many requests were open at once."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    poll = select.epoll()
    open_sockets, seen, answers = {}, collections.Counter(), {}
    for _ in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(address)
        open_sockets[sock.fileno()] = sock
        poll.register(sock, select.EPOLLOUT)
    connected = set()
    deadline = time.monotonic() + patience_s
    while len(connected) < count and time.monotonic() < deadline:
        for fd, _ in poll.poll(1):
            connected.add(fd)
            poll.modify(fd, 0)
    most = len(connected)
    for fd, sock in open_sockets.items():
        try:
            sock.send(request)
        except OSError:
            pass
        poll.modify(fd, select.EPOLLIN)
    while open_sockets and time.monotonic() < deadline:
        for fd, _ in poll.poll(1):
            try:
                piece = open_sockets[fd].recv(65536)
            except OSError:
                piece = b""
            if piece:
                answers[fd] = answers.get(fd, b"") + piece
                continue
            head = answers.get(fd, b"")
            seen[int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else "none"] += 1
            poll.unregister(fd)
            open_sockets.pop(fd).close()
    seen["unanswered"] += len(open_sockets)
    for sock in open_sockets.values():
        sock.close()
    return seen, most


def wakes(address, count, workers=8, path="/fn/hello"):
    """Statuses of so many requests, each of which gets a VM of its own."""
    seen, lock = collections.Counter(), threading.Lock()

    def work(share):
        mine = collections.Counter()
        connection = http.client.HTTPConnection(*address, timeout=60)
        for _ in range(share):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            mine[answer.status] += 1
        connection.close()
        with lock:
            seen.update(mine)

    threads = [threading.Thread(target=work, args=(count // workers,)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen
