"""Inside ASGI servers: started by the lifespan, drained by their stop signal."""

import importlib.util
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

UVICORN = ["-m", "uvicorn", "asgi_child:mounted", "--log-level", "warning"]
HYPERCORN = ["-m", "hypercorn", "asgi_child:mounted", "--graceful-timeout", "20"]
GUNICORN = ["-m", "gunicorn", "--preload", "--workers", "2", "--worker-class", "asgi"]
GUNICORN += ["--graceful-timeout", "20", "--log-level", "warning", "asgi_child:mounted"]


class Client(threading.Thread):
    """Asks until nobody listens; keeps what was answered."""

    def __init__(self, port, name):
        super().__init__()
        self.url, self.label = f"http://127.0.0.1:{port}", name
        self.answered, self.refused = [], []

    def run(self):
        for number in range(100_000):
            name = f"{self.label}-{number}"
            try:
                with urllib.request.urlopen(f"{self.url}/{name}", timeout=30) as answer:
                    answer.read()
                    self.answered.append(name)
            except urllib.error.HTTPError as error:
                error.close()
                self.refused.append(name)
            except OSError:
                return


def serve(arguments, listener):
    return subprocess.Popen(
        [sys.executable, "-u", *arguments],
        cwd=Path(__file__).parent,
        pass_fds=[listener.fileno()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "socket_option", "codes"),
    [
        # uvicorn ends by the signal it was stopped by, as a shell expects.
        pytest.param(UVICORN, ["--fd", "{}"], {0, -signal.SIGTERM}, id="uvicorn"),
        pytest.param(HYPERCORN, ["--bind", "fd://{}"], {0}, id="hypercorn"),
        pytest.param(GUNICORN, ["--bind", "fd://{}"], {0}, id="gunicorn-preload"),
    ],
)
def test_a_server_drains_and_stops_the_application_losing_nothing(
    arguments, socket_option, codes
):
    if importlib.util.find_spec(arguments[1]) is None:
        pytest.skip(f"{arguments[1]} is not installed")
    lines = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        option = [part.format(listener.fileno()) for part in socket_option]
        process = serve(arguments + option, listener)
        port = listener.getsockname()[1]
    with process:
        clients = [Client(port, f"client{n}") for n in range(4)]
        for line in process.stdout:
            lines.append(line.strip())
            if "ready" in lines[-1].split():
                break
        for client in clients:
            client.start()
        for line in process.stdout:
            lines.append(line.strip())
            if sum(each.startswith("answered") for each in lines) == 20:
                process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        for client in clients:
            client.join(30)

    answered = [line.split()[1] for line in lines if line.startswith("answered")]
    assert code in codes, lines[-20:]
    received = {name for client in clients for name in client.answered}
    assert len(answered) == len(set(answered)) >= 20
    assert received <= set(answered)
    lost = set(answered) - received
    if arguments is HYPERCORN:
        # At its stop it closes idle connections, also one whose request comes in
        # that moment: at most the last of each client, which no app can help.
        assert len({name.partition("-")[0] for name in lost}) == len(lost)
    else:
        assert not lost
    assert lines.count("db started") == lines.count("db stopped") >= 1


def test_uvicorn_serves_on_while_readiness_has_failed():
    if importlib.util.find_spec("uvicorn") is None:
        pytest.skip("uvicorn is not installed")
    lines = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        process = serve([*UVICORN, "--fd", str(listener.fileno())], listener)
        port = listener.getsockname()[1]
    with process:
        client = Client(port, "client")
        client.start()
        for line in process.stdout:
            lines.append(line.strip())
            if lines[-1] == "answered client-3":
                process.send_signal(signal.SIGTERM)
        process.wait(60)
        client.join(30)

    drained = lines.index("unready the application is draining")
    served = [line for line in lines[drained:] if line.startswith("answered")]
    assert len(served) > 3
    assert drained < lines.index("db stops")
