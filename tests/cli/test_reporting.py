"""report."""


def test_report_writes_one_file(run, learned_workspace, tmp_path):
    out = tmp_path / "r.html"
    done = run("report", "--workspace", learned_workspace, "--out", out)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"Wrote {out}: 2 tasks, ")
    text = out.read_text(encoding="utf-8")
    assert "01-four-five" in text
    assert text.count("<svg") == 7
    again = run("report", "--workspace", learned_workspace, "--out", out)
    assert again.status == 1
    assert "--overwrite" in again.err
    assert run("report", "--workspace", learned_workspace, "--out", out, "--overwrite").status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_without_accuracies_it_says_how_to_get_them(run, workspace, tmp_path):
    run("train", "--workspace", workspace, "--no-evaluate")
    done = run("report", "--workspace", workspace, "--out", tmp_path / "r.html")
    assert "`csk-sdk evaluate` measures them" in done.out
    assert "Accuracy, task-incremental" not in (tmp_path / "r.html").read_text(encoding="utf-8")
