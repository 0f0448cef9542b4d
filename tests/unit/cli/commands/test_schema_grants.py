from click.testing import CliRunner, Result

from octane_analytics.cli.main import main


def _run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, ["schema", "grants", *arguments])


def test_grants_prints_statements_without_the_password() -> None:
    output = _run(
        "--from", "10.0.0.0/8", "--cluster", "main", CLICKHOUSE_QUERY_PASSWORD="hunter2"
    ).stdout
    assert "GRANT ON CLUSTER main SELECT ON default.ai_analytics_events TO octane_query;" in output
    assert "HOST IP '10.0.0.0/8'" in output
    assert "hunter2" not in output
    assert "BY 'SHA-256 OF THE PASSWORD'" in output


def test_grants_follow_the_settings_of_the_api() -> None:
    output = _run(API_QUERY_TIMEOUT="7", API_QUERY_TABLES="a.b", CLICKHOUSE_QUERY_USER="ana").stdout
    assert "max_execution_time = 7 MIN 0.1 MAX 7 CHANGEABLE_IN_READONLY" in output
    assert "GRANT SELECT ON a.b TO octane_query;" in output
    assert "CREATE USER OR REPLACE ana\n" in output


def test_invalid_network_is_a_usage_error() -> None:
    assert _run("--from", "here").exit_code == 2


def test_grants_without_own_user_or_password_fails() -> None:
    same = _run("--apply", CLICKHOUSE_USER="a", CLICKHOUSE_QUERY_USER="a")
    assert same.exit_code != 0
    assert "of its own" in str(same.exception) + same.output
    none = _run("--apply", CLICKHOUSE_QUERY_PASSWORD="")
    assert "CLICKHOUSE_QUERY_PASSWORD_FILE" in str(none.exception) + none.output
