"""Folders of a federation, and an NVFlare job in one process whose messages are lost and bent on the way."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from merveil.fl.federation import PUBLIC, ROSTER, Folder
from merveil.fl.files import write_bytes
from merveil.fl.keys import save_identity
from merveil.fl.ledger import FileStore
from merveil.protocols.identity import Identity
from merveil.protocols.ledger import Ledger

NAMES = tuple(f"site-{i}" for i in range(1, 6))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folders server and one a client, with keys, roster and ledger, and start.npz."""
    folder = Folder.init(tmp_path / "hq", None)
    coordinator = folder.coordinator(None)
    for name in NAMES:
        home = tmp_path / name
        home.mkdir()
        identity = Identity.generate(name)
        save_identity(home / "identity.key", identity)
        asked = identity.request(folder.invitation.federation, folder.invitation.agree)
        write_bytes(home / "request.bin", asked)
        with FileStore(home / "ledger", create=True) as store:
            Ledger(store)
        folder.add(coordinator, home / "request.bin")
    roster = folder.sign(coordinator, days=30, max_rounds=1000)
    (tmp_path / "server").mkdir()
    for place in ("server", *NAMES):
        write_bytes(tmp_path / place / PUBLIC, folder.invitation.encode())
        write_bytes(tmp_path / place / ROSTER, roster.data)
    np.savez(tmp_path / "start.npz", a=np.zeros((2, 3), np.float32), b=np.zeros(4))
    return tmp_path


@pytest.fixture
def job(root: Path) -> Callable[..., Any]:
    """`job(down=, up=, **controller)`: runs it and tells what happened.

    down, up: (client, exchange from 1, record or Shareable) -> what arrives, None for nothing.
    """
    pytest.importorskip("nvflare", reason="nvflare is not installed: pip install 'merveil[nvflare]'")
    from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
    from nvflare.apis.executor import Executor
    from nvflare.apis.fl_constant import ReservedKey
    from nvflare.apis.fl_context import FLContext
    from nvflare.apis.shareable import Shareable
    from nvflare.apis.signal import Signal
    from nvflare.app_common.decomposers import numpy_decomposers

    from merveil.fl.nvflare import SecureController, SecureExecutor

    numpy_decomposers.register()

    class Context(FLContext):
        """What a job's context tells: names, the job, and its clients."""

        def get_engine(self) -> Any:
            return SimpleNamespace(get_clients=lambda: [SimpleNamespace(name=name) for name in NAMES])

    def context(name: str) -> Context:
        found = Context()
        for key, value in ((ReservedKey.IDENTITY_NAME, name), (ReservedKey.RUN_NUM, "job-1")):
            found.set_prop(key, value, private=True, sticky=True)
        return found

    class Adds(Executor):
        """Adds its number's hundredth to every value, and weighs by its number."""

        def __init__(self, number: int, log: list[int]) -> None:
            super().__init__()
            self.number, self.log = number, log

        def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
            self.log.append(self.number)
            model = from_shareable(shareable).data
            for array in model.values():
                array += self.number / 100
            dxo = DXO(DataKind.WEIGHTS, data=model)
            dxo.set_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, self.number)
            return dxo.to_shareable()

    class InProcess(SecureController):
        """Everything but the engine's queue: tasks and answers go through NVFlare's own encoding."""

        def _exchange(self, tasks: Any, abort_signal: Any, fl_ctx: Any) -> dict[str, Any]:
            done.exchange += 1
            found = {}
            for client, task in tasks.items():
                sent = down(client, done.exchange, Shareable.from_bytes(task.data.to_bytes()))
                if sent is None:
                    continue
                reply = executors[client].execute("merveil", sent, context(client), abort_signal)
                answer = up(client, done.exchange, Shareable.from_bytes(reply.to_bytes()))
                if answer is not None:
                    done.answers.append(answer)
                    found[client] = answer["merveil"]
            return found

        def system_panic(self, reason: str, fl_ctx: Any) -> None:
            done.panic = reason

        def log_info(self, fl_ctx: Any, msg: str, *rest: Any, **more: Any) -> None:
            done.log.append(msg)

        log_warning = log_info

    done = SimpleNamespace(exchange=0, answers=[], panic="", log=[], trained=[])
    executors = {
        name: SecureExecutor(Adds(i, done.trained), homes=str(root)) for i, name in enumerate(NAMES, 1)
    }
    as_is = lambda client, exchange, value: value  # noqa: E731
    up = down = as_is

    def run(**given: Any) -> Any:
        nonlocal up, down
        up, down = given.pop("up", as_is), given.pop("down", as_is)
        places = {
            "home": str(root / "server"),
            "model": str(root / "start.npz"),
            "out": str(root / "out.npz"),
        }
        controller = InProcess(**{**places, "clip": 0.5, "max_weight": 8, "bits": 24, **given})
        controller.control_flow(Signal(), context("server"))
        done.model = (
            dict(np.load(root / "out.npz", allow_pickle=False)) if (root / "out.npz").exists() else None
        )
        return done

    run.executors, run.context, run.signal = executors, context, Signal()  # type: ignore[attr-defined]
    return run
