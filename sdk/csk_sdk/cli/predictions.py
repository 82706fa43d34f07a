"""What a bundle predicts, as JSON and as a table: one class, several, or numbers, as its loss has it."""

from __future__ import annotations

from typing import Any

import numpy as np

from csk_sdk.cli.rendering import Screen, short
from csk_sdk.contract.manifest import BINARY_CROSS_ENTROPY, MSE, Manifest
from csk_sdk.formats.wording import plural, rounded
from csk_sdk.objectives import Prediction, objective_of

_ORDINALS = {1: "1st", 2: "2nd", 3: "3rd"}


def counted(count: int, manifest: Manifest) -> str:
    """4 classes, or 1 target: what a bundle's heads tell."""
    if objective_of(manifest.loss).outputs == "targets":
        return plural(count, "target")
    return plural(count, "class", "classes")


def described(prediction: Prediction, files: list[str], top: int, loss: str) -> list[dict[str, Any]]:
    """Plain values, one object per file.

    With one class per file its `label`, with several its `labels`, and the `top` classes with their
    probabilities; for a regression its `values` by target. Where it was measured, whether it is `known`, and its
    `distance` from what is.
    """
    rows = zip(files, prediction.labels, prediction.probabilities, strict=True)
    if loss == MSE:
        return [
            {
                "file": file,
                "values": {
                    name: float(f"{value:.6g}")
                    for name, value in zip(prediction.classes, values, strict=True)
                },
            }
            for file, values, _ in rows
        ]
    found = []
    for file, label, probabilities in rows:
        best = np.argsort(-probabilities, kind="stable")[:top]
        choices = [
            {"class": prediction.classes[i], "probability": round(float(probabilities[i]), 6)} for i in best
        ]
        decided = {"labels": list(label)} if loss == BINARY_CROSS_ENTROPY else {"label": choices[0]["class"]}
        found.append({"file": file, **decided, "top": choices})
    if prediction.known is not None and prediction.distance is not None:
        for one, known, distance in zip(found, prediction.known, prediction.distance, strict=True):
            one |= {"known": bool(known), "distance": float(f"{distance:.6g}")}
    for one, domain in zip(found, prediction.domains or (), strict=False):
        one["domain"] = domain
    return found


def show_predictions(screen: Screen, found: list[dict[str, Any]]) -> None:
    """What `described` gave, a line for each file. Long names are cut on a terminal only."""
    name_of = short if screen.console.is_terminal else str
    if "values" in found[0]:
        values = [
            (one["file"], *(rounded(value, ".4g") for value in one["values"].values())) for one in found
        ]
        screen.show_rows(("File", *map(name_of, found[0]["values"])), values)
        return
    several, tells = "labels" in found[0], "domain" in found[0]
    places = range(2 - several, len(found[0]["top"]) + 1)
    first = ("Has",) if several else ("Class", "%")
    columns = [
        "File",
        *first,
        *(name for place in places for name in (_ORDINALS.get(place, f"{place}th"), "%")),
    ]
    rows = []
    for one in found:
        cells = [(name_of(choice["class"]), f"{100 * choice['probability']:.1f}") for choice in one["top"]]
        if not one.get("known", True):
            cells[0] = (f"unknown ({cells[0][0]}?)", cells[0][1])
        decided = [", ".join(map(name_of, one["labels"])) or "-"] if several else []
        domain = [one["domain"] or "-"] if tells else []
        rows.append((one["file"], *decided, *(cell for pair in cells for cell in pair), *domain))
    words = {index for index, name in enumerate(columns) if name != "%"}
    if tells:
        words.add(len(columns))
        columns.append("Domain")
    screen.show_rows(columns, rows, words=words, together=1 if several else 2)
