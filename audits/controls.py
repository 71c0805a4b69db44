"""The positive control of each attack: the same attack where it must win.

`plain`, read by the server, is the control of every attack on frames; attacks on the wire use a weakened
server of `audits.broken`. The weakened parts are in no registry and reachable from no option.
"""

from merveil.attacks.base import Attack
from merveil.attacks.runner import (
    Trial,
    try_attack,
    try_on_fields,
    try_on_games,
    try_on_gates,
    try_on_sites,
    try_on_wires,
)
from merveil.attacks.scenario import Task
from merveil.attacks.wire import Wire
from merveil.audits.broken import builds, ckks_builds, lattice_builds, models
from merveil.audits.broken.dp_noise import control_game
from merveil.audits.broken.gates import OpenGate
from merveil.audits.broken.sites import OpenSite
from merveil.audits.broken.unsigned import UnsignedServer

# attack id -> the weakened construction it must win on
BUILDS = {**builds.BUILDS, **ckks_builds.BUILDS, **lattice_builds.BUILDS, **models.BUILDS}


def control_of(attack: Attack, task: Task, seed: int = 0) -> Trial:
    """Run the control; its `scheme` says what it ran on."""
    if attack.setting == "wire":
        wires = [Wire("plain", server=UnsignedServer)]
        return try_on_wires(attack, "plain, signatures not checked", wires, seed)
    if attack.setting == "protocol":
        return try_on_fields(attack, BUILDS[attack.id](), seed)
    if attack.setting == "gate":
        return try_on_gates(attack, "plain", seed, gate=OpenGate)
    if attack.setting == "site":
        return try_on_sites(attack, "secagg", seed, site=OpenSite)
    if attack.setting == "noise":
        return try_on_games(attack, *control_game(attack.id), seed)
    return try_attack(attack, task, "plain", seed)
