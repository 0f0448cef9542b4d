"""bin/install with --root: installed files, kept files, and error messages."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from octane_analytics import __version__
from octane_analytics.cli.commands.manual import PAGES
from octane_analytics.events.decoders import AUTO, COMPILED, choose
from tests.support.checkout import ROOT, Checkout, mode_of
from tests.support.command import wait_until

NEXT = "99.0.0"
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$CALLS"
release=$(readlink "$BASE/current")
case $1 in
    list-units) printf 'octane-analytics-%s.service loaded\\n' api worker ;;
    restart) [ "${release#releases/} $2" != "$BROKEN" ] ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("once"))
    done = checkout.install()
    assert done.returncode == 0, done.stderr
    return checkout


@pytest.fixture
def installed(once: Checkout, tmp_path: Path) -> Checkout:
    """Copy of an installation; possible because a release does not contain its own path."""
    return Checkout(tmp_path, once)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line with the error."""
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("install: error: ")]
    assert line == done.stderr.splitlines()[-1]
    return line.removeprefix("install: error: ")


def install_with_pip(checkout: Checkout, **given: str) -> str:
    """Install without a stand-in; return what was printed on standard error."""
    (checkout.programs / "uv").unlink()
    # Only pip, because a real uv may be on this machine's PATH.
    path = f"{checkout.programs}:/usr/bin:/bin"
    # Dependencies come from this environment, because downloading them takes long.
    dependencies = str(checkout.dependencies)
    given |= {"PATH": path, "PIP_NO_DEPS": "1", "PYTHONPATH": dependencies}
    done = checkout.install(given=given, timeout_seconds=110.0)
    assert done.returncode == 0, done.stderr
    (packages,) = checkout.base.glob("current/venv/lib/python3*/site-packages")
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    return done.stderr


def decoder_of(checkout: Checkout) -> str:
    """Return the decoder that the installed command uses."""
    lines = checkout.run("config").stdout.splitlines()
    return next(line.split("\t")[1] for line in lines if line.startswith("DECODER\t"))


def test_install_without_compiler_decodes_in_python(checkout: Checkout) -> None:
    printed = install_with_pip(checkout, CC="/bin/false")
    assert "install: no compiled decoder: it needs a C compiler" in printed
    assert decoder_of(checkout) == "python"


def test_install_builds_a_release_with_pip(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    for built in (checkout.path / "octane_analytics" / "events").glob("*.so"):
        built.write_bytes(b"of another interpreter")
    has_compiled = "no compiled decoder" not in install_with_pip(checkout)
    assert decoder_of(checkout) == ("compiled" if has_compiled else "python")
    assert has_compiled or choose(AUTO).name != COMPILED
    assert checkout.releases() == {__version__}
    assert checkout.current == __version__
    assert mode_of(checkout.settings) == 0o640
    assert mode_of(checkout.target / "etc/credstore") == 0o700
    assert checkout.settings.read_text() == (ROOT / "conf/octane-analytics.env").read_text()
    assert {unit.name for unit in checkout.units.glob("*.*") if unit.is_file()} == {
        path.name for path in (ROOT / "systemd").glob("octane-analytics*")
    }
    assert not (checkout.path / "build").exists()
    assert not list(checkout.path.glob("*.egg-info"))

    # The release contains neither its own path nor that of the checkout.
    moved = checkout.target.rename(tmp_path / "moved")
    checkout.target = moved
    assert checkout.run("--version").stdout.split()[-1] == __version__
    for page in PAGES:
        # The page is package data for the command, and a file to which README and alerts link.
        text = (ROOT / "octane_analytics" / "manual" / f"{page}.md").read_text()
        linked = moved / f"opt/octane-analytics/current/octane_analytics/manual/{page}.md"
        assert linked.read_text() == checkout.run("manual", page).stdout == text
    python = moved / "opt/octane-analytics/current/venv/bin/python"
    where = subprocess.run(
        [python, "-P", "-c", "import octane_analytics, gunicorn; print(octane_analytics.__file__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(f"{moved}/opt/octane-analytics/")
    for script in ("octane-analytics", "gunicorn", "activate"):
        assert not (python.parent / script).exists()


def test_installed_command_has_the_service_settings(installed: Checkout) -> None:
    with installed.settings.open("a") as settings:
        settings.write("KAFKA_TOPIC=mine\nCLICKHOUSE_PASSWORD_FILE=octane-analytics.ch\n")
    (installed.target / "etc/credstore/octane-analytics.ch").write_text("s3cret\n")
    done = installed.run("config")
    assert done.returncode == 0, done.stderr
    assert f"KAFKA_TOPIC\tmine\tenvironment {installed.settings}\n" in done.stdout
    assert "CLICKHOUSE_PASSWORD\t********\tfile octane-analytics.ch\n" in done.stdout
    assert (
        "KAFKA_TOPIC\tothers\t" in installed.run("config", given={"KAFKA_TOPIC": "others"}).stdout
    )


def test_repeated_install_restores_only_missing_files(installed: Checkout) -> None:
    unit = installed.units / "octane-analytics-worker.service"
    inode = (installed.base / "releases" / __version__).stat().st_ino
    installed.settings.write_text("KAFKA_TOPIC=mine\n")
    unit.unlink()
    done = installed.install()
    assert done.returncode == 0, done.stderr
    assert (installed.base / "releases" / __version__).stat().st_ino == inode
    assert installed.settings.read_text() == "KAFKA_TOPIC=mine\n"
    assert unit.is_file()


def test_upgrade_and_rollback_keep_settings_change_units(installed: Checkout) -> None:
    with installed.settings.open("a") as settings:
        settings.write("KAFKA_TOPIC=mine\n")
    kept = installed.settings.read_text()
    installed.set_version(NEXT)
    installed.edit("conf/octane-analytics.env", "#KAFKA_TOPIC", "# New.\n#KAFKA_TOPIC")
    installed.edit("systemd/octane-analytics-api.service", "Restart=on-failure", "Restart=always")
    (installed.path / "systemd/octane-analytics-more.service").write_text("[Service]\n")
    (installed.units / "octane-analytics-own.service").write_text("[Service]\n")

    error = error_of(installed.install())
    assert error == f"release {__version__} is installed: --upgrade switches to {NEXT}"
    assert installed.current == __version__

    done = installed.install("--upgrade", "--no-check")
    assert done.returncode == 0, done.stderr
    assert installed.current == NEXT
    assert installed.run("--version").stdout.split()[-1] == NEXT
    assert "KAFKA_TOPIC\tmine\tenvironment " in installed.run("config").stdout
    assert installed.settings.read_text() == kept
    assert "# New.\n" in installed.settings.with_name("octane-analytics.env.new").read_text()
    assert "octane-analytics.env.new" in done.stderr
    assert "Restart=always" in (installed.units / "octane-analytics-api.service").read_text()
    assert (installed.units / "octane-analytics-more.service").exists()

    # From the installed tree, because the checkout may have been removed.
    done = subprocess.run(
        [installed.base / "current/bin/install", "--root", installed.target, "--rollback"],
        env=installed.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert installed.current == __version__
    assert installed.run("--version").stdout.split()[-1] == __version__
    assert installed.settings.read_text() == kept
    assert "Restart=on-failure" in (installed.units / "octane-analytics-api.service").read_text()
    assert not (installed.units / "octane-analytics-more.service").exists()
    assert (installed.units / "octane-analytics-own.service").exists()

    assert installed.install("--rollback").returncode == 0
    assert installed.current == NEXT
    assert installed.install("--rollback", __version__).returncode == 0
    assert installed.current == __version__
    error = error_of(installed.install("--rollback", "7"))
    assert error.startswith("release 7 does not exist; available: ")


def test_changed_checkout_of_same_version_is_new_release(installed: Checkout) -> None:
    installed.edit("octane_analytics/__init__.py", "__version__ =", "changed = 1\n__version__ =")
    assert installed.install("--upgrade", "--no-check").returncode == 0
    assert installed.current == f"{__version__}+2"
    assert installed.releases() == {__version__, f"{__version__}+2"}


def test_upgrade_keeps_the_last_three_releases(installed: Checkout) -> None:
    for number in range(1, 5):
        installed.set_version(f"99.0.{number}")
        done = installed.install("--upgrade", "--no-check")
        assert done.returncode == 0, done.stderr
    assert installed.releases() == {"99.0.2", "99.0.3", "99.0.4"}
    assert installed.install("--list").stdout == "* 99.0.4\n  99.0.3\n  99.0.2\n"


def test_settings_invalid_for_new_release_stop_upgrade(installed: Checkout) -> None:
    with installed.settings.open("a") as settings:
        settings.write("CLICKHOUSE_PORT=8123\n")
    installed.set_version(NEXT)
    done = installed.install("--upgrade")
    assert error_of(done) == f"release {NEXT} rejects the settings; not switched"
    assert "CLICKHOUSE_PORT is 8123" in done.stderr
    assert installed.current == __version__
    assert installed.install("--upgrade", "--no-check").returncode == 0
    assert installed.current == NEXT


def test_failed_preflight_stops_the_upgrade(installed: Checkout) -> None:
    with installed.settings.open("a") as settings:
        settings.write("KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1\nCLICKHOUSE_HOST=127.0.0.1:1\n")
    installed.set_version(NEXT)
    done = installed.install("--upgrade")
    assert error_of(done) == (
        f"release {NEXT} failed the checks above; not switched; --no-check skips them"
    )
    assert "127.0.0.1:1" in done.stderr
    assert installed.current == __version__


def test_unit_that_fails_restores_the_old_release(installed: Checkout) -> None:
    calls = installed.target / "calls"
    given = {
        "SYSTEMCTL": str(installed.put_program("fake-systemctl", SYSTEMCTL)),
        "CALLS": str(calls),
        "BASE": str(installed.base),
        "BROKEN": f"{NEXT} octane-analytics-worker.service",
    }
    installed.set_version(NEXT)
    done = installed.install("--upgrade", "--no-check", given=given)
    assert error_of(done) == (
        f"restored release {__version__}, because octane-analytics-worker.service does not start with "
        f"release {NEXT}"
    )
    assert installed.current == __version__
    assert not (installed.base / "previous").exists()
    restarts = [line for line in calls.read_text().splitlines() if line.startswith("restart")]
    assert (
        restarts
        == ["restart octane-analytics-api.service"] * 0
        + [
            "restart octane-analytics-api.service",
            "restart octane-analytics-worker.service",
        ]
        * 2
    )

    given["BROKEN"] = ""
    calls.unlink()
    done = installed.install("--upgrade", "--no-check", given=given)
    assert done.returncode == 0, done.stderr
    assert installed.current == NEXT
    order = [line.split()[0] for line in calls.read_text().splitlines()]
    assert order == ["daemon-reload", "list-units", "restart", "restart", "is-active", "is-active"]


def with_protocol(installed: Checkout, number: int) -> dict[str, str]:
    """Set the delivery protocol of the next release, which has a worker running beside it."""
    installed.set_version(NEXT)
    module = "octane_analytics/kafka/client_ids.py"
    installed.edit(module, "PROTOCOL_VERSION = 2\n", f"PROTOCOL_VERSION = {number}\n")
    with installed.settings.open("a") as settings:
        settings.write("KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1\n")
    return {
        "SYSTEMCTL": str(installed.put_program("fake-systemctl", SYSTEMCTL)),
        "CALLS": str(installed.target / "calls"),
        "BASE": str(installed.base),
        "BROKEN": "",
    }


def test_other_protocol_without_broker_needs_force(installed: Checkout) -> None:
    given = with_protocol(installed, 3)
    unit = "octane-analytics-worker.service"
    upgrade = ("--upgrade", "--no-check", "--wait", "0")
    done = installed.install(*upgrade, given=given)
    assert done.returncode == 1
    *_, error, note = done.stderr.splitlines()
    assert error == (
        "install: error: no broker answers, so the group may not be drained; not switched to release "
        f"{NEXT}; --force does not ask, for a machine without a broker"
    )
    assert note == f"install: starting {unit} again with release {__version__}"
    assert installed.current == __version__
    calls = (installed.target / "calls").read_text().splitlines()
    assert [line for line in calls if unit in line] == [f"stop {unit}", f"start {unit}"]

    done = installed.install("--upgrade", "--no-check", "--no-restart", given=given)
    assert error_of(done) == (
        f"release {NEXT} has delivery protocol 3 and {__version__} has 2: stop the workers or omit "
        "--no-restart"
    )
    done = installed.install("--upgrade", "--no-check", "--force", given=given)
    assert done.returncode == 0, done.stderr
    assert installed.current == NEXT
    assert "the group is not asked whether it is drained (--force)" in done.stderr


def test_each_group_of_the_host_is_asked(installed: Checkout) -> None:
    given = with_protocol(installed, 3)
    del given["SYSTEMCTL"]
    wanted = installed.units / "multi-user.target.wants"
    wanted.mkdir()
    (wanted / "octane-analytics-worker@clips.service").symlink_to("nowhere")
    clips = installed.settings.with_name("clips.env")
    clips.write_text("KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:2\n")
    done = installed.install("--upgrade", "--no-check", "--wait", "0", given=given)
    assert error_of(done).startswith("no broker answers")
    assert "127.0.0.1:2" in done.stderr
    assert "127.0.0.1:1" not in done.stderr


def test_worker_that_fails_restores_the_other_protocol(installed: Checkout) -> None:
    given = with_protocol(installed, 3)
    given["BROKEN"] = f"{NEXT} octane-analytics-worker.service"
    done = installed.install("--upgrade", "--no-check", "--force", given=given)
    assert error_of(done).startswith(f"restored release {__version__}, because ")
    assert installed.current == __version__
    calls = (installed.target / "calls").read_text().splitlines()
    steps = [line for line in calls if line.endswith("octane-analytics-worker.service")]
    assert [line.split()[0] for line in steps] == [
        *("stop", "restart", "stop", "restart", "is-active")
    ]


def test_units_stopped_before_a_kill_are_started(installed: Checkout) -> None:
    given = with_protocol(installed, 2)
    (installed.base / ".stopped").write_text("octane-analytics-worker@clips.service\n")
    done = installed.install("--upgrade", "--no-check", given=given)
    assert done.returncode == 0, done.stderr
    calls = (installed.target / "calls").read_text().splitlines()
    assert "restart octane-analytics-worker@clips.service" in calls
    assert not (installed.base / ".stopped").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--wait", "5"),
        ("--force",),
        ("--upgrade", "--wait"),
        ("--upgrade", "--wait", "-1"),
        ("--rollback", "--wait", "5", "--force"),
    ],
)
def test_misused_drain_options_exit_with_2(installed: Checkout, arguments: tuple[str, ...]) -> None:
    done = installed.install(*arguments)
    assert done.returncode == 2
    assert "see bin/install --help" in error_of(done)


def test_interrupted_upgrade_keeps_old_release_until_repeated(
    installed: Checkout, tmp_path: Path
) -> None:
    installed.set_version(NEXT)
    for number in (signal.SIGKILL, signal.SIGINT):
        marker = tmp_path / f"waits-{number}"
        with installed.begin("--upgrade", given={"UV_WAITS": str(marker)}) as process:
            wait_until(marker.exists)
            error = error_of(installed.install("--upgrade"))
            assert error == f"another bin/install runs in {installed.base}: wait until it is done"
            os.killpg(process.pid, number)
            _, errors = process.communicate(timeout=20)
        if number == signal.SIGINT:
            assert process.returncode == 130
            last = errors.splitlines()[-1]
            assert last == "install: error: interrupted: run it again to complete it"
            assert installed.releases() == {__version__}
        assert installed.current == __version__
        assert installed.run("--version").returncode == 0
    done = installed.install("--upgrade", "--no-check")
    assert done.returncode == 0, done.stderr
    assert installed.releases() == {__version__, NEXT}


def test_failed_build_prints_reason_and_leaves_nothing(checkout: Checkout) -> None:
    done = checkout.install(given={"UV_SAYS": "OSError: [Errno 28] No space left on device"})
    assert error_of(done) == (
        f"release {__version__} could not be built: the disk that holds {checkout.base} is full: "
        "make room, then run this again"
    )
    assert done.stderr.count("\n") == 2
    done = checkout.install(given={"UV_SAYS": "no such package"})
    assert "no such package\n" in done.stderr
    assert error_of(done).endswith("fix the errors above, then run this again")
    assert checkout.releases() == set()
    assert not (checkout.base / "current").exists()


def test_small_disk_is_reported_before_the_build(checkout: Checkout) -> None:
    checkout.target.mkdir()
    inside = f'mount -t tmpfs -o size=30m none "{checkout.target}" && exec "$@"'
    install = [str(checkout.path / "bin/install"), "--root", str(checkout.target), "--any-python"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inside, "sh", *install],
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if "install: " not in done.stderr:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    error = error_of(done)
    assert error.startswith(f"{checkout.base} has 30 MB left, and building a release takes up to ")


def test_units_verify_and_are_sandboxed(installed: Checkout, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI") == "true":
            raise AssertionError("systemd-analyze is missing: apt-get install systemd")
        pytest.skip("systemd-analyze is not on this machine (Debian and Ubuntu: systemd)")
    copies = tmp_path / "units"
    copies.mkdir()
    for unit in installed.units.glob("octane-analytics*.*"):
        if unit.is_file():
            text = unit.read_text().replace("/opt/octane-analytics", str(installed.base))
            (copies / unit.name).write_text(text)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(copies.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in verified.stderr.splitlines() if "octane" in line]
    assert (verified.returncode, ours) == (0, []), verified.stderr
    for service in sorted(copies.glob("*.service")):
        scored = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=20", service],
            capture_output=True,
            text=True,
            check=False,
        )
        assert scored.returncode == 0, scored.stdout.splitlines()[-1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_is_installed_and_removed(installed: Checkout, shell: str) -> None:
    name = {"zsh": "_octane-analytics", "fish": "octane-analytics.fish"}.get(
        shell, "octane-analytics"
    )
    (script,) = (installed.target / "usr/local/share").glob(f"{shell}*/*/{name}")
    assert "_OCTANE_ANALYTICS_COMPLETE" in script.read_text()
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
    others = script.with_name("other")
    others.touch()
    assert installed.install("--uninstall").returncode == 0
    assert [others] == list(script.parent.iterdir())


def test_completion_completes_commands_and_options(installed: Checkout) -> None:
    """Complete as bash does, with the installed script and the command on the PATH."""
    ask = (
        'source "$1"; COMP_WORDS=(octane-analytics $2); COMP_CWORD=$3; '
        "_octane_analytics_completion octane-analytics; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    script = installed.target / "usr/local/share/bash-completion/completions/octane-analytics"
    path = f"{installed.target}/usr/local/bin:{os.environ['PATH']}"
    for words, place, expected in (
        ("st", 1, "status"),
        ("dlq pu", 2, "purge-report"),
        ("status --wa", 2, "--watch"),
        ("replay --mode re", 3, "rebuild"),
    ):
        done = subprocess.run(
            ["bash", "-c", ask, "bash", script, words, str(place)],
            env=installed.environment({"PATH": path}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == [expected], done.stderr


def test_printed_command_uses_the_installed_name(installed: Checkout) -> None:
    """The installed command adds --env-file, and printed commands use its path, not the release's."""
    script = "from octane_analytics.cli.invocation import program; print(program())"
    (python,) = installed.base.glob("current/venv/bin/python")
    command = str(installed.target / "usr/local/bin/octane-analytics")
    for path, expected in (
        (f"{installed.target}/usr/local/bin:/usr/bin:/bin", "octane-analytics"),
        ("/usr/bin:/bin", command),
    ):
        done = subprocess.run(
            [python, "-P", "-c", script],
            env=installed.environment({"OCTANE_COMMAND": command, "PATH": path}),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"['{expected}']\n"
    assert "OCTANE_COMMAND" in Path(command).read_text()


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/root/python", "is in a home directory"),
        ("/home/me/.pyenv/bin/python", "is in a home directory"),
        ("/tmp/python", "is in a temporary directory"),  # noqa: S108
        (
            "/var/lib/nowhere/python",
            "the service's user, who may not enter or run /var/lib/nowhere",
        ),
    ],
)
def test_interpreter_hidden_from_the_service_is_rejected(
    checkout: Checkout, path: str, error: str
) -> None:
    # Prints what an interpreter at that path would print.
    stand_in = checkout.put_program(
        "stand-in",
        f"#!/bin/sh\ncase $2 in *base_executable*) echo {path} ;; *) echo 3.11.2 ;; esac\n",
    )
    refused = subprocess.run(
        [checkout.path / "bin/install", "--root", checkout.target],
        env=checkout.environment({"PYTHON": str(stand_in)}),
        capture_output=True,
        text=True,
        check=False,
    )
    printed = error_of(refused)
    assert f"{path} is " in printed
    assert error in printed
    assert not checkout.releases()


def test_interpreter_below_a_closed_directory_is_rejected(checkout: Checkout) -> None:
    parent = Path("/var/lib")
    if not os.access(parent, os.W_OK):
        pytest.skip(
            f"needs a directory outside of /tmp and the homes, and {parent} is not writable"
        )
    with tempfile.TemporaryDirectory(dir=parent, prefix="octane-closed-") as directory:
        python = Path(directory) / "python"
        python.symlink_to("/bin/true")
        refused = subprocess.run(
            ["bash", "-c", f"{_function('obstacle')}\nobstacle {python}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert refused.stdout.strip().endswith(f"who may not enter or run {directory}")
        Path(directory).chmod(0o755)
        allowed = subprocess.run(
            ["bash", "-c", f"{_function('obstacle')}\nobstacle {python}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert allowed.stdout == ""


def _function(name: str) -> str:
    """Return the text of a function of bin/install."""
    text = (ROOT / "bin/install").read_text()
    start = text.index(f"{name}() {{")
    return text[start : text.index("\n}\n", start) + 2]


def test_uninstall_keeps_the_settings_unless_purged(installed: Checkout) -> None:
    own = installed.units / "octane-analytics-own.service"
    own.write_text("[Service]\n")
    wants = installed.units / "octane-analytics.target.wants"
    wants.mkdir()
    (wants / "octane-analytics-worker@clips.service").symlink_to("/nowhere")
    assert installed.install("--uninstall").returncode == 0
    assert installed.settings.is_file()
    assert not installed.base.exists()
    assert not (installed.target / "usr/local/bin/octane-analytics").exists()
    assert list(installed.units.iterdir()) == [own]

    assert installed.install().returncode == 0
    assert installed.install("--uninstall", "--purge").returncode == 0
    assert not installed.settings.parent.exists()


def test_command_of_another_program_is_kept(checkout: Checkout) -> None:
    foreign = checkout.target / "usr/local/bin/octane-analytics"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("#!/bin/sh\n")
    done = checkout.install()
    assert done.returncode == 0
    assert f"{foreign} was not installed by bin/install and is kept" in done.stderr
    assert foreign.read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--frobnicate"], "unknown argument '--frobnicate'"),
        (["extra"], "unknown argument 'extra'"),
        (["--upgrade", "--rollback"], "--upgrade and --rollback exclude each other"),
        (["--purge"], "--purge requires --uninstall"),
        (["--upgrade", "--enable"], "--enable cannot be combined with another action"),
        (["--enable"], "--enable calls systemd and cannot be combined with --root"),
    ],
)
def test_wrong_command_line_is_one_line_of_usage(
    checkout: Checkout, arguments: list[str], error: str
) -> None:
    done = checkout.install(*arguments)
    assert done.returncode == 2
    assert done.stderr == f"install: error: {error}; see bin/install --help\n"
    assert not checkout.target.exists()


def test_impossible_action_is_one_line(checkout: Checkout) -> None:
    error = error_of(checkout.install("--upgrade"))
    assert error == f"nothing is installed in {checkout.base}: run bin/install without --upgrade"
    error = error_of(checkout.install("--rollback"))
    assert error.startswith("no release before ")
    old = checkout.put_program("old-python", "#!/bin/sh\necho 3.9.2\nexit 1\n")
    error = error_of(checkout.install(given={"PYTHON": str(old)}))
    assert error == f"Python 3.11 or newer with venv is needed, but {old} is Python 3.9.2"
    bare = checkout.put_program(
        "bare-python", "#!/bin/sh\ncase $2 in *venv*) exit 1 ;; *) echo 3.11.2 ;; esac\n"
    )
    (checkout.programs / "uv").unlink()
    path = f"{checkout.programs}:/usr/bin:/bin"
    error = error_of(checkout.install(given={"PYTHON": str(bare), "PATH": path}))
    assert error.endswith(f"Python 3.11.2 ({bare}) lacks venv: apt-get install python3.11-venv")
    assert not (checkout.base / "releases").exists() or not checkout.releases()


def test_install_without_root_is_an_error(checkout: Checkout) -> None:
    def leave_root() -> None:
        if os.getuid() == 0:
            os.setuid(65534)

    for directory in (checkout.path, *checkout.path.parents):
        if directory == Path("/tmp"):  # noqa: S108
            break
        directory.chmod(directory.stat().st_mode | 0o055)
    done = subprocess.run(
        ["bash", str(checkout.path / "bin/install")],
        env=checkout.environment(),
        preexec_fn=leave_root,
        capture_output=True,
        text=True,
        check=False,
    )
    error = error_of(done)
    assert error == "bin/install changes the machine and must run as root: sudo bin/install"


def test_help_is_printed_without_root(checkout: Checkout) -> None:
    done = checkout.install("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: bin/install")
