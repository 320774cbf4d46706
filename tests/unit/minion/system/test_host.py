"""Commands that are run, how they fail, and kernel settings."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.system.host import Host


def test_run_returns_standard_output() -> None:
    """Standard input goes in, standard output comes out; no shell interprets the arguments."""
    assert Host().run("cat", text="a b\n") == "a b\n"
    assert Host().run("echo", "$HOME; rm *") == "$HOME; rm *\n"


def test_failed_command_is_named_in_error() -> None:
    """The error holds the command, its exit status and its standard error."""
    with pytest.raises(HostError, match=r"'ls /no/such/place' failed \(2\): .*No such file"):
        Host().run("ls", "/no/such/place")


def test_missing_program_names_installing_state() -> None:
    """The error says which state installs the tools."""
    with pytest.raises(HostError, match=r"'no-such-tool' is not installed .* wgmesh\.tools"):
        Host().run("no-such-tool", "x")


def test_key_quoted_by_wg_is_cut_out(tmp_path: Path) -> None:
    """wg repeats a key that it can't read; a damaged private key is still a secret."""
    script = tmp_path / "wg"
    script.write_text('#!/bin/sh\necho "Key is not the correct length or format: \\`half-a-secret\'" >&2\nexit 1\n')
    script.chmod(0o755)
    with pytest.raises(HostError, match="Key is not the correct length or format") as caught:
        Host().run(str(script), "set")
    assert "half-a-secret" not in str(caught.value)


def test_failed_batch_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many lines, the error has the one that the kernel refused."""
    script = tmp_path / "ip"
    script.write_text(
        "#!/bin/sh\necho 'RTNETLINK answers: No such process' >&2\necho 'Command failed -:2' >&2\nexit 1\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(
        HostError, match=r"^'ip -4 route add 10\.0\.0\.2/32' failed: RTNETLINK answers: No such process$"
    ):
        Host().ip_batch(4, [("route", "add", "10.0.0.1/32"), ("route", "add", "10.0.0.2/32")])


def test_missing_route_does_not_fail_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines after it are run, and a later error is raised."""
    fake = tmp_path / "ip"
    fake.write_text(
        "#!/bin/sh\n"
        f"cat > {tmp_path}/lines\n"
        f"grep -q broken {tmp_path}/lines || exit 0\n"
        f"number=$(grep -n broken {tmp_path}/lines | head -n 1 | cut -d: -f1)\n"
        "echo 'RTNETLINK answers: No such process' >&2\n"
        'echo "Command failed -:$number" >&2\n'
        "exit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    gone = ("route", "del", "broken")
    Host().ip_batch(4, [("route", "replace", "a"), gone, gone, ("route", "replace", "b")])
    assert (tmp_path / "lines").read_text() == "route replace b\n"
    with pytest.raises(HostError, match=r"^.ip -4 route replace broken. failed"):
        Host().ip_batch(4, [gone, ("route", "replace", "broken")])


def test_background_program_inherits_no_pipes(tmp_path: Path) -> None:
    """start returns though the program lives on and would keep our pipes open."""
    began = time.monotonic()
    Host().start("sh", "-c", f"(sleep 5; touch {tmp_path}/late) &")
    assert time.monotonic() - began < 3
    with pytest.raises(HostError, match="'false' failed"):
        Host().start("false")


def test_kernel_setting_missing_is_none(tmp_path: Path) -> None:
    """A setting that the kernel lacks can't be set. IPv6 is enabled only if it is for new devices too."""
    host = Host(sysctl_dir=tmp_path)
    assert host.sysctl("net/ipv4/ip_forward") is None
    assert host.has_ipv6 is False
    with pytest.raises(HostError, match="/proc/sys/net/ipv4/ip_forward can't be set to 1"):
        host.set_sysctl("net/ipv4/ip_forward", "1")
    for which in ("all", "default"):
        (tmp_path / "net/ipv6/conf" / which).mkdir(parents=True)
        (tmp_path / "net/ipv6/conf" / which / "disable_ipv6").write_text("0\n")
    assert host.has_ipv6 is True
    host.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1")
    assert host.has_ipv6 is False
