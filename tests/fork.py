"""A fork of this repository under another name, published as the README says."""

import shutil
import subprocess
import sys
from pathlib import Path

import set_repository

ROOT = Path(__file__).resolve().parents[1]
NAME = "Ada-Lovelace/cells.2026"
PUBLISH = [sys.executable, "scripts/publish_as.py"]


def git(root, *words):
    who = ["-c", "user.name=A", "-c", "user.email=a@localhost"]
    done = subprocess.run(["git", *who, *words], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def copy_of_the_project(root):
    for path in set_repository.text_files(ROOT):
        target = root / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return root


def publish_as(root, name):
    return subprocess.run([*PUBLISH, name], cwd=root, capture_output=True, text=True)


def make_fork(root):
    """Return the folder of a repository, published as NAME, with all on its branch main."""
    copy_of_the_project(root)
    git(root, "init", "--quiet", "--initial-branch", "main")
    done = publish_as(root, NAME)
    assert done.returncode == 0, done.stderr
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Published as another's")
    return root


def instead_of_github(address):
    """Variables by which git finds at `address` what the fork has on GitHub."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{address}.insteadOf",
        "GIT_CONFIG_VALUE_0": set_repository.HOST + NAME,
    }
