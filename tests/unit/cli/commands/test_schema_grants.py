from click.testing import CliRunner, Result

from octane_analytics.cli.main import main


def _run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, ["schema", "grants", *arguments])


def test_grants_prints_the_user_without_a_password() -> None:
    told = _run(
        "--from", "10.0.0.0/8", "--cluster", "main", CLICKHOUSE_QUERY_PASSWORD="hunter2"
    ).stdout
    assert "GRANT ON CLUSTER main SELECT ON default.ai_analytics_events TO octane_query;" in told
    assert "HOST IP '10.0.0.0/8'" in told
    assert "hunter2" not in told
    assert "BY 'SHA-256 OF THE PASSWORD'" in told


def test_grants_follow_the_settings_of_the_api() -> None:
    told = _run(API_QUERY_TIMEOUT="7", API_QUERY_TABLES="a.b", CLICKHOUSE_QUERY_USER="ana").stdout
    assert "max_execution_time = 7 MIN 0.1 MAX 7 CHANGEABLE_IN_READONLY" in told
    assert "GRANT SELECT ON a.b TO octane_query;" in told
    assert "CREATE USER OR REPLACE ana\n" in told


def test_network_that_is_none_is_an_error_of_usage() -> None:
    assert _run("--from", "here").exit_code == 2


def test_grants_need_a_user_and_a_password_of_their_own() -> None:
    same = _run("--apply", CLICKHOUSE_USER="a", CLICKHOUSE_QUERY_USER="a")
    assert same.exit_code != 0
    assert "of its own" in str(same.exception) + same.output
    none = _run("--apply", CLICKHOUSE_QUERY_PASSWORD="")
    assert "CLICKHOUSE_QUERY_PASSWORD_FILE" in str(none.exception) + none.output
