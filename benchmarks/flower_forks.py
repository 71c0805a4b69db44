"""Starts Flower's node programs by forking one process that has imported them, so that many fit in memory.

    python benchmarks/flower_forks.py FOLDER SOCKET      (flower_round.py --preloaded starts it)

A SuperNode, its SuperExec and its ClientApp are three Python processes that each import the engine: some
0.4 GB a node and seconds of processor time a message. FOLDER gets programs of the same names that hand
their arguments, working folder and open files to this server and end; the server forks and runs the
program's own entry point. The engine is unchanged and still talks over TLS; what is saved is the imports,
in every arm alike. Needs a system with fork and file descriptors over sockets (Linux, macOS).
"""

import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("flower-supernode", "flower-superexec", "flwr-clientapp")
LONGEST = 1 << 16  # bytes of one request

_SHIM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    request = json.dumps([{name!r}, sys.argv[1:], os.getcwd()]).encode()
    socket.send_fds(server, [request], [1, 2])
    sys.exit(0 if server.recv(1) else 1)
"""


def write_shims(folder: Path, address: Path) -> None:
    """Programs named as the engine's, which have the server at `address` start them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        path = folder / name
        path.write_text(_SHIM.format(python=sys.executable, address=str(address), name=name))
        path.chmod(0o755)


def entries() -> dict[str, Callable[[], None]]:
    """The engine's entry points, imported with what its apps import."""
    import numpy  # noqa: F401  the app's
    from flwr.clientapp import ClientApp  # noqa: F401
    from flwr.supercore.cli import flower_superexec
    from flwr.supernode.cli import flower_supernode, flwr_clientapp
    from flwr.supernode.runtime import run_clientapp  # noqa: F401
    from flwr.supernode.start_client_internal import start_client_internal  # noqa: F401

    from merveil.fl import flower  # noqa: F401

    return {
        "flower-supernode": flower_supernode,
        "flower-superexec": flower_superexec,
        "flwr-clientapp": flwr_clientapp,
    }


def become(entry: Callable[[], None], name: str, words: list[str], folder: str, files: list[int]) -> None:
    """In the forked process: take the caller's arguments, folder and output, run, and end."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(folder)
        for target, file in zip((1, 2), files, strict=True):
            os.dup2(file, target)
            os.close(file)
        sys.argv = [name, *words]
        entry()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()  # nobody above this frame would
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(folder: Path, address: Path) -> None:
    """Fork for every request until a signal ends this process."""
    known = entries()
    write_shims(folder, address)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for the forked
    gc.collect()
    gc.freeze()  # else the first collection in every child would copy the pages it shares
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(address))
        listener.listen(256)
        while True:
            caller, _ = listener.accept()
            with caller:
                request, files, _, _ = socket.recv_fds(caller, LONGEST, 2)
                name, words, folder = json.loads(request)
                if os.fork() == 0:
                    listener.close()
                    caller.close()
                    become(known[name], name, words, folder, files)
                for file in files:
                    os.close(file)
                caller.send(b"1")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
