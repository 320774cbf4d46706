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


def fake_ip(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Have ``ip`` be a shell script of *lines*."""
    script = folder / "ip"
    script.write_text("\n".join(("#!/bin/sh", *lines, "")))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_refused_routes_are_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines between them are run."""
    said = "RTNETLINK answers: Operation not permitted\\nCommand failed -:"
    fake_ip(tmp_path, monkeypatch, f"printf '{said}1\\n{said}3\\n' >&2", "exit 2")
    lines = [("route", "replace", name) for name in "abc"]
    refused = Host().ip_batch_each(4, lines)
    assert list(refused) == [lines[0], lines[2]]
    assert refused[lines[2]] == "'ip -4 route replace c' failed: RTNETLINK answers: Operation not permitted"
    with pytest.raises(HostError, match=r"route replace a' failed: .* \(and 1 more\)"):
        Host().ip_batch(4, lines)


@pytest.mark.parametrize(
    "said",
    [
        'Command failed -:1\\nError: inet prefix is expected rather than "b".\\n',
        "Segmentation fault\\n",
        "Command failed -:0\\nCommand failed -:99999999\\n",
        "\\377\\376",
    ],
)
def test_routes_count_as_refused_if_ip_ends_early(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line that was perhaps not run is taken for done."""
    fake_ip(tmp_path, monkeypatch, f"printf '{said}' >&2", "exit 1")
    lines = [("route", "replace", name) for name in "abc"]
    assert Host().ip_batch_each(4, lines).keys() == set(lines)
    with pytest.raises(HostError):
        Host().ip_batch(4, [("link", "set", "a")])


def test_output_that_is_no_text_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device may have any bytes in its name."""
    fake_ip(tmp_path, monkeypatch, r"printf 'a\377\376b'")
    assert Host().run("ip") == "a\ufffd\ufffdb"


@pytest.mark.parametrize("words", [("/",), ("ls", "a\0b"), ("ls", "x" * 5_000_000)])
def test_program_that_cannot_start_is_host_error(words: tuple[str, ...]) -> None:
    """It is no file that can be run, or the kernel does not take the arguments."""
    with pytest.raises(HostError, match="cannot be run"):
        Host().run(*words)


def test_hanging_program_is_ended_after_its_time() -> None:
    """The error says after how many seconds."""
    began = time.monotonic()
    with pytest.raises(HostError, match=r"did not end within 0\.2 s"):
        Host(command_timeout=0.2).run("sleep", "60")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("stream", ["1", "2"], ids=["output", "errors"])
def test_endless_output_is_a_named_error(stream: str) -> None:
    """The command is ended, whatever it prints to, long before the time of a hanging one."""
    began = time.monotonic()
    with pytest.raises(HostError, match=r"'sh -c .* printed more than 1000000 bytes: too many routes"):
        Host(max_output=1_000_000).run("sh", "-c", f"exec yes >&{stream}")
    assert time.monotonic() - began < 30
    assert len(Host(max_output=1_000_000).run("head", "-c", "1000000", "/dev/zero")) == 1_000_000


def test_long_input_and_output_pass_each_other() -> None:
    """A command prints while it reads, or reads nothing at all: both come to an end."""
    text = "route replace 10.0.0.1/32\n" * 100_000
    assert Host().run("cat", text=text) == text
    assert Host().run("true", text=text) == ""


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
