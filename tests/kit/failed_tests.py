"""A plugin of pytest for .ci/run: writes the ids of tests that failed into the file that FAILED_TESTS names, one a line."""

import os


def pytest_runtest_logreport(report):
    # With several jobs each of them and the one that leads hears of it; only the leader may write.
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        with open(os.environ["FAILED_TESTS"], "a", encoding="utf-8") as failed:
            failed.write(report.nodeid + "\n")
