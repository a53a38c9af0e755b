"""What `forked.py` begins: become `python -m zoo …` in a folder, with streams and an environment.

Run by the fork server's process under the name `given` is known by: see `Forked`.
"""

import atexit
import os
import runpy
import signal
import sys
import threading

given = globals()["given"]
if given["alone"]:
    os.setsid()
for kind in (signal.SIGINT, signal.SIGCHLD):
    signal.signal(kind, signal.default_int_handler if kind == signal.SIGINT else signal.SIG_DFL)
for number, stream in enumerate(given["streams"]):
    handle = stream.detach()
    os.dup2(handle, number)
    os.close(handle)
sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
os.chdir(given["folder"])
os.environ.clear()
os.environ.update(given["environment"])
added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
sys.path[:0] = [given["folder"], *(path for path in added if path not in sys.path)]
sys.argv = ["zoo", *given["words"]]
sys.orig_argv = [sys.executable, "-m", "zoo", *given["words"]]
try:
    runpy.run_module("zoo", run_name="__main__", alter_sys=True)
except Exception:
    sys.excepthook(*sys.exc_info())
    raise SystemExit(1) from None
finally:
    # As an interpreter ends: threads, what was to be done at exit, and what is still unwritten.
    threading._shutdown()
    atexit._run_exitfuncs()
    for written in (sys.stdout, sys.stderr):
        if written is not None:
            written.flush()
