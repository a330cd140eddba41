"""The page of each plugin says how to install it from a clone, with all that pip would not find elsewhere."""

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT

PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/setup.cfg"))


def needed(plugin: Path) -> set[str]:
    """The plugin and the other plugins of the repository that it requires."""
    setup = ConfigParser(interpolation=None)
    setup.read(plugin / "setup.cfg", encoding="utf-8")
    names = re.findall(r"^([\w-]+)", setup["options"]["install_requires"], re.MULTILINE)
    others = [ROOT / "plugins" / name for name in names if (ROOT / "plugins" / name).is_dir()]
    return {plugin.name}.union(*map(needed, others))


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_the_page_of_a_plugin_says_how_to_install_it_from_a_clone(plugin: Path) -> None:
    text = (plugin / "README.md").read_text(encoding="utf-8")
    command = re.search(r"^    pip install \. (.*)$", text, re.MULTILINE)
    assert command is not None
    folders = command[1].split()
    assert f"After the first release it is\n`pip install {plugin.name}`." in text
    assert {Path(folder) for folder in folders} == {Path("plugins", name) for name in needed(plugin)}
    assert all(folder.startswith("./") for folder in folders)
