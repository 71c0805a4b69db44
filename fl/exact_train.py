"""One exact federated training into a run folder: three sums, so a resume begins again with new sessions."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from merveil.fl.answering import answering_rule
from merveil.fl.clients import parse_clients, partition
from merveil.fl.driver import Run
from merveil.fl.exact import ExactFederation, Trained
from merveil.fl.exact_model import exact_bytes
from merveil.fl.files import sha256
from merveil.fl.model import save_exact_model
from merveil.fl.options import TrainOptions, config_toml
from merveil.fl.runs import RunFolder, RunLog
from merveil.mer.data.archive import Archive


def trained(archive: Archive, options: TrainOptions) -> Trained:
    """The model over all clients of the archive."""
    run = Run("", partition(archive, parse_clients(options.clients)))
    return ExactFederation(archive, options).train(run)


def trained_sha256(archive: Archive, options: TrainOptions) -> str:
    """The SHA-256 that model.safetensors of this run would have."""
    return sha256(exact_bytes(trained(archive, options).model))


def run_exact(
    folder: RunFolder,
    archive: Archive,
    source: str,
    options: TrainOptions,
    log: RunLog,
    manifest: Mapping[str, Any],
) -> None:
    """Train and write configuration, manifest, one line of metrics a sum, and the model."""
    folder.write_config(config_toml({"data": source, **options.as_dict()}))
    folder.write_manifest({**manifest, "status": "running"})
    folder.keep_metrics(0)
    done = trained(archive, options)
    for at, one in enumerate(done.sums):
        folder.add_metrics({"round": at, **asdict(one), "cut": 0.0})
        log.info(
            f"sum {at + 1}/{len(done.sums)} ({one.name}): {one.survivors} of {one.clients} clients, "
            f"{one.numbers} numbers of {one.bits} bits, {one.uplink_bytes / 1e6:.2f} MB up"
        )
    rule = answering_rule(archive, options)
    height, width, channels = archive.x.shape[1:]
    digest = save_exact_model(
        folder.path,
        done.model,
        name=options.model,
        options=options.model_options,
        shape=(height, width, channels),
        meta=archive.meta,
        answering=None if rule is None else rule.to_json(),
        trained={
            "rounds": len(done.sums),
            "scheme": options.scheme,
            "seed": options.seed,
            "config_sha256": options.sha256,
            "data_sha256": archive.sha256,
            "clips": int(np.sum(done.model.basis.counts)),
        },
    )
    finished = {"status": "finished", "rounds_done": len(done.sums), "model_sha256": digest}
    folder.write_manifest({**manifest, **finished})
