"""Copies of the folder of a run, one after each of its checkpoints: what is there if the run is killed then."""

import os
import shutil


def copies_at_checkpoints(monkeypatch, run, beside):
    """The list that gets the path of a copy whenever a checkpoint is in its place."""
    copies, rename = [], os.replace

    def renamed(source, target):
        rename(source, target)
        if str(target).endswith(".ckpt.mml"):
            copies.append(shutil.copytree(run, beside / f"copy{len(copies)}"))

    monkeypatch.setattr(os, "replace", renamed)
    return copies
