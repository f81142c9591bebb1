import socket

import pytest

from nelbo.connections import OPTIONS, close_unreachable_connections


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux")
def test_open_tcp_connections_notice_a_host_that_is_gone():
    pair = socket.socketpair()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as tcp,
    ):
        close_unreachable_connections()
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        for option, value in OPTIONS.items():
            assert tcp.getsockopt(socket.IPPROTO_TCP, getattr(socket, option)) == value
    for end in pair:
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        end.close()
