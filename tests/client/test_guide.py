"""The lines of the guide, against the real service."""

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode

GUIDE = (REPOSITORY / "docs" / "guides" / "python-client.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
PRINTED = (
    r"\w+ 0\.\d+ (True|False)\n",
    r"photos/a\.jpg \w+\nphotos/below/b\.jpg failed\. .*Send .*\n",
    r"Prediction\(request_id=.*\nphotos/a\.jpg \w+\nphotos/below/b\.jpg .*\n",
    r"\w+\n",
    r"/problems/unsupported-image-format 415 .*\n",
)


@pytest.mark.parametrize(("block", "printed"), list(zip(BLOCKS, PRINTED, strict=True)))
def test_the_lines_of_the_guide_work(
    block: str,
    printed: str,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "photos" / "below").mkdir(parents=True)
    for name in ("tulip.jpg", "photos/a.jpg"):
        (tmp_path / name).write_bytes(encode(draw_photograph(4, seed=1)))
    (tmp_path / "photos" / "below" / "b.jpg").write_text("no image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVICE_KEY", "garden")
    assert "http://127.0.0.1:8000" in block
    exec(compile(block.replace("http://127.0.0.1:8000", url), "python-client.md", "exec"), {})
    assert re.fullmatch(printed, capsys.readouterr().out)
