"""Connections between processes: they fail when a host cannot be reached, and are closed at the end."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import torch

OPTIONS = {
    "TCP_KEEPIDLE": 5,  # seconds without data before the first probe
    "TCP_KEEPINTVL": 5,  # seconds between probes
    "TCP_KEEPCNT": 3,  # probes without an answer
    "TCP_USER_TIMEOUT": 20_000,  # milliseconds that sent data may be without an answer
}


def enable_keepalive() -> None:
    """Set TCP keepalive, so that the kernel closes connections whose host does not answer for 20 s.

    Otherwise gloo waits for the timeout of the process group when a host is switched off or a link is cut. A
    process that computes for long is not affected, because the kernel of its host answers. Only on Linux.
    """
    open_files = Path("/proc/self/fd")
    for file in open_files.iterdir() if open_files.exists() else ():
        if not file.is_socket():  # socket.socket would fail, and leave the duplicate open
            continue
        with suppress(OSError), socket.socket(fileno=os.dup(int(file.name))) as connection:
            if connection.type == socket.SOCK_STREAM and connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in OPTIONS.items():
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def close_process_group() -> None:
    """Destroy the process group, if there is one.

    Lightning leaves that of gloo to the end of the interpreter, which can then abort while its threads run.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
