"""`mtaio demo` as a process of its own, and a small client of its page."""

import http.client
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

COMMAND = [sys.executable, "-m", "mtaio", "demo"]
# Generous: a wait ends when its condition holds, not at this.
PATIENCE = 30.0


def environment(**settings):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MTAIO_")}
    settings = {f"MTAIO_{name}": str(value) for name, value in settings.items()}
    return clean | settings | {"PYTHONUNBUFFERED": "1"}


def run(folder, *arguments, **settings):
    """Run to the end; what was printed."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(**{"DRAIN_DELAY": 0} | settings),
        capture_output=True,
        text=True,
        timeout=60,
    )


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def text(self):
        return self.body.decode()

    @property
    def document(self):
        return json.loads(self.body)


class Demo:
    """One that runs: `page`, `probes` and `service` are where."""

    def __init__(self, folder, *arguments, **settings):
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            env=environment(**settings),
            stdout=subprocess.PIPE,
            text=True,
        )
        told = "".join(self.process.stdout.readline() for _ in range(3))
        found = re.findall(r"http://127\.0\.0\.1:\d+", told)
        assert len(found) == 4, told
        self.service, _, self.probes, self.page = found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Killed, it would leave its log's ring in shared memory.
        self.process.terminate()
        try:
            self.process.communicate(timeout=PATIENCE)
        finally:
            self.process.kill()

    def rest(self):
        """What it still prints, up to its end."""
        output = self.process.stdout.read()
        self.process.wait(PATIENCE)
        return output

    def act(self, action, **given):
        """Press a button; the page's own request."""
        return request(
            f"{self.page}/actions/{action}",
            json.dumps(given).encode(),
            **{"Origin": self.page, "X-Mtaio-Demo": "1"},
        )

    def state(self, after=0):
        return request(f"{self.page}/state?after={after}").document

    def told(self, pattern, after=0):
        """Wait for an entry that has `pattern` in it; the entry."""
        return wait_for(
            lambda: next(
                (
                    entry
                    for entry in self.state(after)["entries"]
                    if re.search(pattern, entry["text"])
                ),
                None,
            ),
            f"nothing told of {pattern!r}",
        )

    @property
    def newest(self):
        return max((e["number"] for e in self.state()["entries"]), default=0)

    def probe(self, name):
        return request(f"{self.probes}/{name}")

    def metric(self, name):
        text = self.probe("metrics").text
        return float(re.search(rf"(?m)^{name}(?:{{.*}})? (\S+)", text)[1])


def wait_for(condition, otherwise):
    """What `condition()` gives once it is true."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if got := condition():
            return got
        time.sleep(0.02)
    raise AssertionError(otherwise)


def request(url, body=None, method=None, **headers):
    """One request; an answer of any status."""
    asked = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return Answer(answer.status, dict(answer.headers), answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read())


def exchange(url, sent):
    """Exact bytes out, the answer's status and body back."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    try:
        connection.connect()
        connection.sock.sendall(sent)
        answer = http.client.HTTPResponse(connection.sock)
        answer.begin()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
