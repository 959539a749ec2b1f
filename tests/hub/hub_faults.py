"""Faults of the test Hub that a test switches on."""

import re
from dataclasses import dataclass, field


@dataclass
class Fault:
    """A fault of requests of one method whose path matches.

    Attributes:
        method: GET, POST, ...
        path: Regular expression that is searched in the decoded path.
        status: Status of the answer; 0 if the fault is not an answer.
        message: Message of the answer.
        headers: Headers of the answer.
        cut: ``before`` the body is read, in its ``middle``, or ``after`` the work is done, without an answer.
        slow: Seconds to wait before each piece of the body is read.
        times: How many requests it hits; None is all.
        hits: How many it has hit.
    """

    method: str
    path: str
    status: int = 0
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cut: str = ""
    slow: float = 0.0
    times: int | None = None
    hits: int = 0

    def takes(self, method, path):
        if self.times is not None and self.hits >= self.times:
            return False
        if method != self.method or not re.search(self.path, path):
            return False
        self.hits += 1
        return True


class Faults(list):
    """The active faults."""

    def add(self, method, path, status=0, **fields):
        self.append(Fault(method, path, status, **fields))
        return self[-1]

    def of(self, method, path):
        return next((fault for fault in self if fault.takes(method, path)), None)
