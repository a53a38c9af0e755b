"""An exported file run by others than onnxruntime: each in a process of its own.

catalogue   which runtimes there are, which are installed, how to get the others
running     one process for one answer: its time limit, its crash, what it leaves behind
worker.py   what runs in that process; worker.mjs is the same for Node
"""

from zoo.export.runtimes.catalogue import NAMES, Worker, how_to_install, installed
from zoo.export.runtimes.running import Answer, ask, run

__all__ = ["NAMES", "Answer", "Worker", "ask", "how_to_install", "installed", "run"]
