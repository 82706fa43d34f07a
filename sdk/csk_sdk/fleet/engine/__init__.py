"""An engine that carries a fleet's files: NVFlare, with TLS on both sides and a key for everyone who takes part.

    fleet prepare KIT   what a device, or the server, lets an operator do, and where its files are (`prepare_device`,
                        `prepare_server`)
    fleet round KIT     ask all devices for what they have learned, merge it, give it to all (`run_round`)

The bytes are those of `fleet.export` and `fleet.merge`, so what devices know in the end is what they know by files.
Needs the extra `engine`, in an environment of its own; nothing of NVFlare is imported before one of these runs. How to
run it: docs/fleet.md; why this engine: docs/decisions/0036-engine.md.
"""

from csk_sdk.fleet.engine.kits import prepare_device, prepare_server
from csk_sdk.fleet.engine.operator import RoundReport, run_round

__all__ = ["RoundReport", "prepare_device", "prepare_server", "run_round"]
