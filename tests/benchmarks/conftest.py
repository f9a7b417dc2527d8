import pytest

from benchmarks.speed.command import main


@pytest.fixture
def bench(workplace, capsys):
    """Run the command line in process: bench(...) -> exit code; .out and .err are its texts."""

    def run(*arguments):
        code = main(list(map(str, arguments)))
        run.out, run.err = capsys.readouterr()
        return code

    return run
