"""A second request to stop ends a process that is deep in a call which no handler interrupts."""

import signal
import subprocess
import sys
import time

import pytest

# Locking a native mutex is such a call: it goes on after every signal, and runs no Python in between.
BUSY = """
import ctypes
from ranjax.training.signals import StopFlag

lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(128)
with StopFlag(at_once=130):
    print("busy", flush=True)
    lock(mutex)
    lock(mutex)  # held by this thread itself: waits for ever
"""


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses Linux's native mutexes")


@pytest.fixture
def busy():
    line = [sys.executable, "-c", BUSY]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "busy\n"
        time.sleep(0.1)
        yield process
        process.kill()


def ends(process, seconds):
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def test_two_interrupts_end_a_busy_process_with_the_documented_code(busy):
    busy.send_signal(signal.SIGINT)
    assert ends(busy, 0.3) is None
    busy.send_signal(signal.SIGINT)
    assert ends(busy, 10) == 130
    assert busy.stderr.read() == "stopped at once; finished shards and the last checkpoint remain\n"


@pytest.mark.slow
def test_one_request_delivered_twice_is_one_and_a_later_second_one_ends_the_process(busy):
    for _ in range(2):
        busy.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    assert ends(busy, 3.2) is None
    busy.send_signal(signal.SIGTERM)
    assert ends(busy, 10) == 130


def test_an_interrupt_inside_a_finaliser_is_not_lost():
    """Python prints and forgets what is raised there: the next poll raises it, or the end of the block."""
    script = """
import os, signal
from ranjax.training.signals import StopFlag

class Busy:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass  # the handler runs in here

for poll in (True, False):
    try:
        with StopFlag() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop()
            Busy()
            if poll:
                stop()
                print("lost", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("interrupted\ninterrupted\n", "")
