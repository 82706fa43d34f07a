"""Which of a model's sites to train: `--trainable` (docs/decisions/0008-choosing-sites.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from csk_sdk.contract.manifest import Site
from csk_sdk.errors import ConfigError, ModelError

AUTO = "auto"
Fits = Callable[[Sequence[Site]], bool]


@dataclass(frozen=True)
class Choice:
    """The sites to train, in graph order, and why these: one line."""

    sites: list[Site]
    reason: str


def choose_sites(
    sites: list[Site],
    trainable: str,
    order: list[str],
    where: str,
    intensity: Mapping[str, float] | None = None,
    fits: Fits | None = None,
) -> Choice:
    """Apply `--trainable`: "all", "from:NODE" (that node and all behind it), or "auto", the last two stages.

    With `fits`, which says whether training some sites stays within the budget, it takes as many of these from the
    back as fit; and with `intensity` too (by site name, not negative), those that together are most intense. A set
    fits only if every subset with the same first site fits. Empty where not even the last site does.
    `order` holds all node names in graph order. Raises ModelError for a node that is not there, ConfigError for any
    other choice.
    """
    eligible, which = _eligible(sites, trainable, order, where)
    if fits is None:
        return Choice(eligible, which)
    which = which.partition(" (")[0]
    if intensity is None:
        chosen = _from_the_back(eligible, fits)
        return Choice(chosen, f"of {which}, as many from the back as fit into the memory budget")
    chosen = most_intense(eligible, intensity, fits)
    return Choice(chosen, f"of {which}, the most intense that fit together into the memory budget")


def _eligible(sites: list[Site], trainable: str, order: list[str], where: str) -> tuple[list[Site], str]:
    """What `--trainable` allows, in words too."""
    if trainable == "all":
        return sites, "all sites (--trainable all)"
    if trainable == AUTO:
        # Reaching further back loses on images that were not trained on: measured in decision 0008.
        return last_stages(sites, order), "the sites of the last two stages (--trainable auto)"
    if not trainable.startswith("from:"):
        raise ConfigError(f"--trainable is '{trainable}'; it must be auto, all or from:NODE.")
    name = trainable.removeprefix("from:")
    if name not in order:
        known = ", ".join(f"'{site.node}'" for site in sites)
        raise ModelError(f"{where} has no node '{name}'. Sites that training can start from: {known}.")
    chosen = [site for site in sites if order.index(site.node) >= order.index(name)]
    if not chosen:
        raise ModelError(
            f"{where} has no site at or behind node '{name}', nothing that --sites names. Start from an earlier node."
        )
    return chosen, f"the sites from node '{name}' on"


def _from_the_back(sites: list[Site], fits: Fits) -> list[Site]:
    """The longest tail that fits. Each further site needs more memory, so halving finds it."""
    most, beyond = 0, len(sites) + 1
    while beyond - most > 1:
        count = len(sites) if most == 0 and beyond > len(sites) else (most + beyond) // 2
        if fits(sites[len(sites) - count :]):
            most = count
        else:
            beyond = count
    return sites[len(sites) - most :]


def last_stages(sites: list[Site], order: Sequence[str]) -> list[Site]:
    """The sites whose output has one of the two smallest image sizes; there back-propagation ends.

    A site on single pixels (a gate, or a layer behind the pooling) makes no stage: it goes with the stage around it.
    """
    areas = sorted({_area(site) for site in sites if _area(site) > 1}) or [1]
    stages = areas[:2]
    begin = min(order.index(site.node) for site in sites if _area(site) in stages)
    return [
        site
        for site in sites
        if _area(site) in stages or (_area(site) == 1 and order.index(site.node) >= begin)
    ]


def most_intense(sites: list[Site], intensity: Mapping[str, float], fits: Fits) -> list[Site]:
    """The set of sites with the highest summed intensity among those looked at that fit; empty if none does.

    How far back training reaches costs most, because back-propagation must get there; what is trained on the way
    costs little. So for every first site the strongest of those behind it join, as many as fit.
    """
    best: list[Site] = []
    for first in reversed(range(len(sites))):
        behind = sorted(sites[first + 1 :], key=lambda site: -intensity[site.name])
        found = _longest(sites, [sites[first]], behind, fits)
        if not found:
            break
        if not best or _sum(found, intensity) > _sum(best, intensity):
            best = found
    return best


def _longest(sites: list[Site], first: list[Site], behind: list[Site], fits: Fits) -> list[Site]:
    """`first` and as many of `behind`, in their order, as fit together; empty if `first` alone does not.

    Found by halving, because saying whether a set fits may take its time.
    """
    low, high = -1, len(behind)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(_in_order(sites, [*first, *behind[:middle]])):
            low = middle
        else:
            high = middle - 1
    return _in_order(sites, [*first, *behind[:low]]) if low >= 0 else []


def _in_order(sites: list[Site], chosen: list[Site]) -> list[Site]:
    names = {site.name for site in chosen}
    return [site for site in sites if site.name in names]


def _sum(sites: list[Site], intensity: Mapping[str, float]) -> float:
    return sum(intensity[site.name] for site in sites)


def _area(site: Site) -> int:
    area = 1
    for size in site.output_size:
        area *= size
    return area
