"""For tests of permissions: root may do everything, so the test steps down first."""

import gc
import multiprocessing
import os
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

T = TypeVar("T")
NOBODY = 65534
"""User and group without any rights of their own."""
DEADLINE_S = 60.0


def as_nobody(work: Callable[[], T]) -> T:
    """Run a callable without root's rights and return what it returns.

    As root it runs in a forked child as user and group 65534; otherwise it runs right here. What
    it returns must pickle; what it raises is printed and fails the test, so expect exceptions
    inside. Import all that it needs beforehand: nobody may not be able to read the installation.
    """
    if os.geteuid() != 0:
        return work()
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_step_down, args=(work, sending))
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forks beside threads: the child touches none of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    sending.close()
    try:
        outcome: T = receiving.recv()
    except EOFError:
        raise AssertionError("failed without privileges: its traceback is printed") from None
    finally:
        child.join(DEADLINE_S)
    return outcome


def _step_down(work: Callable[[], object], sending: Connection) -> None:
    # What the parent left to be collected may wait, as it goes, for threads that a fork has not.
    gc.disable()
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    sending.send(work())
