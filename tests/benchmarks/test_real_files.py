"""benchmarks/real_files.py on a small file: the whole life, and the section of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import real_files
from onnx_text import model
from preparing import HEAD
from real_files import Case, Row, live, put, section, section_of, shapes

from csk_artifacts_builder import BuildOptions

NODES = "c = Conv<pads=[1,1,1,1]>(x, w) \n r = Relu(c) \n t = Conv<pads=[1,1,1,1]>(r, v) \n s = Sigmoid(t)"
TAIL = "p = GlobalAveragePool(s) \n f = Flatten(p) \n y = Gemm<transB=1>(f, h, hb)"


def case(folder: Path, nodes: str = NODES) -> Case:
    def write(into: Path) -> Path:
        proto = model(f"(float[N,3,12,12] x) => (float[N,3] y) {{ {nodes} \n {TAIL} }}", **HEAD)
        proto.producer_name, proto.producer_version = "by hand", "1"
        onnx.save(proto, into / "small.onnx")
        return into / "small.onnx"

    return Case("small.onnx", "onnx", write, BuildOptions(), (12, 12), shapes(3))


@pytest.mark.slow
def test_a_life(tmp_path: Path) -> None:
    row = live(case(tmp_path), tmp_path)
    assert row.works, row
    assert (row.classes, row.convolutions, row.sites, row.image) == (3, 2, 2, "3x12x12")
    assert row.exporter == "by hand 1"
    assert row.new >= 75
    assert not row.is_blind


def test_features_that_tell_nothing_apart_have_a_low_rank() -> None:
    rng = np.random.default_rng(0)
    several = rng.normal(size=(20, 3)).astype(np.float32)
    one_number = np.repeat(several[:, :1], 300, axis=1) * (1 + 1e-7 * rng.normal(size=(20, 300)))
    assert real_files.rank_of(one_number.astype(np.float32)) == 1
    assert real_files.rank_of(np.concatenate([several, one_number, np.zeros((20, 2))], axis=1)) == 3
    row = Row("a.onnx", "onnx 1", image="3x8x8", classes=2, check="passed", same=0.7, rank=3)
    assert row.is_right
    assert row.is_blind
    assert not row.works
    page = section([row], "versions")
    assert "Features of 20 images have a rank of 3. 1 of them build" in page
    assert "answers 70 % alike" in page


def test_the_section_is_put_in_its_place_and_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Supported\n\ntext\n\n## Measured with\n\ntorch.\n")
    assert section_of(page) == ""
    works = Row("a.onnx", "timm 1", image="3x8x8", classes=2, check="passed", same=1.0, base=99.0, new=100.0)
    put(page, section([works, Row("b.onnx", "x 2", refused="b.onnx is a detector.")], "versions"))
    text = page.read_text()
    assert "Living: 1 of 2 files; refused for what they are: 1." in text
    assert "- b.onnx is a detector." in text
    assert text.index(real_files.END) < text.index("## Measured with")
    put(page, section([works], "others"))
    assert page.read_text().count("## Files of other people") == 1
    assert "b.onnx" not in page.read_text()
