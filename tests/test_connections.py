import os
import socket
from pathlib import Path

import pytest

from nelbo.connections import OPTIONS, enable_keepalive

OPEN = Path("/proc/self/fd")  # files of this process


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux")
def test_open_tcp_connections_notice_a_host_that_is_gone():
    pair = socket.socketpair()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as tcp,
    ):
        enable_keepalive()
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        for option, value in OPTIONS.items():
            assert tcp.getsockopt(socket.IPPROTO_TCP, getattr(socket, option)) == value
    for end in pair:
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        end.close()


@pytest.mark.skipif(not OPEN.exists(), reason="Linux")
def test_no_file_is_left_open():
    """The reader of a pipe would wait for the end of a duplicate for ever."""
    reader, writer = os.pipe()
    pair = socket.socketpair()
    before = len(list(OPEN.iterdir()))
    enable_keepalive()
    assert len(list(OPEN.iterdir())) == before
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    for end in pair:
        end.close()
