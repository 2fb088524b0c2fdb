"""Runtimes: inference back-ends behind one Protocol, and the queue in front of them.

A back-end loads a model file and runs batches; what goes in and comes out are float32 tensors, by role. It does the
arithmetic that was asked for or refuses. What the tensors mean, and which back-end is best, is decided above.

Errors: BadInput `runtimes.bad-spec`, `runtimes.format`, `runtimes.precision`, `runtimes.bad-threads`,
`runtimes.wrong-shape`, `runtimes.bad-capacity`; Broken `runtimes.load-failed`, `runtimes.wrong-outputs`,
`runtimes.run-failed`, `runtimes.remote-failed`, `runtimes.bad-answer`,
`runtimes.no-environment`; Busy `runtimes.queue-full`, `runtimes.queue-closed`.
"""

from relens.runtimes.base import Backend, ModelSpec, Session
from relens.runtimes.dummy import Dummy, write_dummy
from relens.runtimes.dummy import head as dummy_head
from relens.runtimes.onnx_runtime import OnnxRuntime
from relens.runtimes.python import Python
from relens.runtimes.queue import WorkQueue
from relens.runtimes.remote import Remote

__all__ = [
    "Backend",
    "Dummy",
    "ModelSpec",
    "OnnxRuntime",
    "Python",
    "Remote",
    "Session",
    "WorkQueue",
    "dummy_head",
    "write_dummy",
]
