"""What listens has its port for itself, and refuses nobody from the moment on that it is told of."""

from __future__ import annotations

import socket

import pytest

from relens.errors import Conflict
from relens.wiring.listening import listen


def test_a_port_is_taken_as_soon_as_it_is_listened_on():
    with listen("127.0.0.1", 0) as listener, pytest.raises(Conflict):
        listen("127.0.0.1", listener.getsockname()[1])


def test_who_comes_before_the_server_has_begun_is_let_in():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        pass
