"""Who is alive: this very process, and no other that has or had its pid."""

import os
import subprocess

from relens.jobs import is_alive, start_time, this_host, this_worker


def test_this_process_is_alive_and_known_by_when_it_started():
    me = this_worker()
    assert me.pid == os.getpid()
    assert me.host == this_host()
    assert is_alive(me.pid, me.started)
    assert not is_alive(me.pid, str(int(me.started) - 1))


def test_a_process_with_an_odd_name_is_read_right(tmp_path):
    """The kernel puts the name between brackets, whatever it is made of."""
    odd = tmp_path / "a) R 1 (b c"
    odd.symlink_to("/bin/sleep")
    process = subprocess.Popen([odd, "60"])
    try:
        started = start_time(process.pid)
        assert started is not None
        assert started.isdigit()
        assert int(started) >= int(start_time(os.getpid()))
        assert is_alive(process.pid, started)
    finally:
        process.kill()
        process.wait()
    assert not is_alive(process.pid, started)
    assert start_time(process.pid) is None


def test_a_zombie_does_not_run():
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(process.pid) is None
    process.wait()


def test_no_process_has_a_pid_that_is_too_large():
    assert start_time(2**22 + 1) is None
