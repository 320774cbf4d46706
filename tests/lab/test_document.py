"""Reading a README as steps: no command and no file is skipped."""

from __future__ import annotations

import pytest

from .scenarios.readme.document import Command, File, steps

README = """# A project

    make demo

```
a picture
```

```bash
salt-pip install it   # here

salt '*' test.ping
```

```yaml
# /srv/pillar/top.sls
base: {}
```
"""


def test_steps_come_in_order(tmp_path):
    """Commands and files come in order, with their line numbers. A remark is part of the line, not of the command."""
    path = tmp_path / "README.md"
    path.write_text(README)
    first, second, file = steps(path)
    assert first == Command(line="salt-pip install it   # here", number=10)
    assert isinstance(first, Command)
    assert first.bare == "salt-pip install it"
    assert second == Command(line="salt '*' test.ping", number=12)
    assert file == File(path="/srv/pillar/top.sls", text="# /srv/pillar/top.sls\nbase: {}\n", number=16)


@pytest.mark.parametrize(
    "block",
    ["```\nsalt-run wgmesh.plan\n```\n", "```sh\nls\n```\n", "```yaml\nbase: {}\n```\n", "```yaml\n```\n"],
    ids=["salt without a tag", "another tag", "yaml without a path", "empty yaml"],
)
def test_untested_block_is_refused(tmp_path, block):
    """A block that is neither commands nor a file is a ValueError with its line number."""
    path = tmp_path / "README.md"
    path.write_text(f"text\n{block}")
    with pytest.raises(ValueError, match="README, line 3: "):
        steps(path)
