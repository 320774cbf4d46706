"""The printed configuration removes no setting of the master's files."""

from __future__ import annotations

import pytest
import salt.config
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.master.operator import install, merged_config

SETTINGS = {
    "file_roots": [{"base": ["/srv/company"]}, {"base": ["/srv/salt", "/srv/a"], "dev": ["/srv/dev"]}, {"dev": ["/d"]}],
    "ext_pillar": [[{"cmd_json": "inventory"}], [{"wgmesh": True}, {"git": [{"main https://g/p": [{"root": "p"}]}]}]],
    "reactor": [[{"salt/key": ["/srv/reactor/key.sls"]}], [{"web/*": ["/srv/a.sls", "/srv/b.sls"]}]],
    "schedule": [{"backup": {"function": "a.b", "hours": 1}}, {"wgmesh-converge": {"function": "x.y", "seconds": 5}}],
}
"""Values that a company may have under the keys of ours."""
contents = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in SETTINGS.items()})
files = st.dictionaries(st.sampled_from(["master", "master.d/a.conf", "master.d/zz.conf", "late.conf"]), contents)


@pytest.fixture(scope="module")
def new_folder(tmp_path_factory):
    """A function that returns a new folder for a master's configuration."""
    return lambda: tmp_path_factory.mktemp("etc")


def written(folder, contents):
    """The options that name the master's main file, below *folder*, once its files have *contents*."""
    (folder / "master.d").mkdir()
    main = {"include": ["late.conf"], "id": "m", **contents.get("master", {})}
    for name, content in {**contents, "master": main}.items():
        (folder / name).write_text(yaml.safe_dump(content))
    return {"conf_file": str(folder / "master")}


def effective(opts):
    """What Salt makes of the master's files, of the keys of ours."""
    found = salt.config.master_config(opts["conf_file"])
    return {key: found[key] for key in SETTINGS}


def has_all(value, wanted):
    """Whether *value* has each part of *wanted*."""
    if isinstance(wanted, dict):
        return all(key in value and has_all(value[key], each) for key, each in wanted.items())
    if isinstance(wanted, list):
        return all(each in value for each in wanted)
    return value == wanted


def needed(ours, key):
    """The part of *ours* under *key* that must count: without Salt's default folder, and a job of that name."""
    if key == "file_roots":
        return {"base": ours[key]["base"][-1:]}
    return {"wgmesh-converge": {}} if key == "schedule" else ours[key]


@settings(max_examples=40, deadline=None)
@given(contents=files)
def test_no_setting_is_removed(new_folder, contents):
    """With the printed file Salt has all that it had before, and ours; else an error names key and file."""
    folder = new_folder()
    opts = written(folder, contents)
    before, ours = effective(opts), yaml.safe_load(install.master_config())
    # A file that counts more than the printed one must have the whole job, and not only one of its name.
    late = {key: ours[key] if key == "schedule" else needed(ours, key) for key in contents.get("late.conf", {})}
    if lost := [key for key, wanted in late.items() if not has_all(contents["late.conf"][key], wanted)]:
        with pytest.raises(LedgerError) as raised:
            merged_config.merged_config(opts)
        assert any(f"{key} is set in {folder / 'late.conf'}" in str(raised.value) for key in lost)
        return
    text = merged_config.merged_config(opts)
    (folder / "master.d" / "wgmesh.conf").write_text(text)
    after = effective(opts)
    for key in SETTINGS:
        if any(key in content for content in contents.values()):
            assert has_all(after[key], before[key])
        assert has_all(after[key], needed(ours, key))


@settings(max_examples=20, deadline=None)
@given(contents=files)
def test_second_call_prints_the_same(new_folder, contents):
    """Also what the operator has added to the printed file is printed again."""
    folder = new_folder()
    opts = written(folder, {name: content for name, content in contents.items() if name != "late.conf"})
    text = merged_config.merged_config(opts)
    path = folder / "master.d" / "wgmesh.conf"
    path.write_text(text.replace("    - /srv/salt\n", "    - /srv/salt\n    - /srv/added\n"))
    assert has_all(yaml.safe_load(merged_config.merged_config(opts)), yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"ext_pillar": [{"mysql": {"password": "x"}}]}, "seems to hold a secret"),
        ({"ext_pillar": [{"git": ["main https://user:word@example.org/p"]}]}, "seems to hold a secret"),
        ({"file_roots": ["/srv/salt"]}, "of another kind"),
    ],
    ids=["password", "address", "other kind"],
)
def test_unmergeable_key_is_a_comment(new_folder, content, problem):
    """It names the key and its file. Sent to the file by the shell, it is one that Salt can read."""
    opts = written(new_folder(), {"master": content})
    with pytest.raises(LedgerError, match=problem) as raised:
        merged_config.merged_config(opts)
    assert f"{next(iter(content))} in {opts['conf_file']}" in str(raised.value)
    assert yaml.safe_load(str(raised.value)) is None


def test_unreadable_configuration_is_named(new_folder):
    """A damaged file of another program in master.d."""
    folder = new_folder()
    opts = written(folder, {})
    (folder / "master.d" / "a.conf").write_text("a: [")
    with pytest.raises(LedgerError, match="can't be read"):
        merged_config.merged_config(opts)
