"""Programs that people use with Netdata, unchanged, against a parent of ours and its child; see tests/clients.sh.

Usage: check.py PORT [PROMETHEUS]. The parent `served` and its child `kid` have the charts of feed.plugin, and served the alarms of fed.conf.
"""
import asyncio
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

PORT = int(sys.argv[1])
PROMETHEUS = sys.argv[2] if len(sys.argv) > 2 else ""
URL = f"http://127.0.0.1:{PORT}"
BIN = os.path.dirname(sys.executable)


def ask(path, url=URL):
    with urllib.request.urlopen(url + path, timeout=10) as answer:
        return json.load(answer)


def wait_for(what, seconds, look):
    end = time.monotonic() + seconds
    while True:
        try:
            if found := look():
                return found
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            pass
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.2)


def is_fed(second, sec):
    """The feed has a second in its chart: at a slot's end that, or up to two less, as the feed is never quite on the second."""
    return 0 <= (second - sec + 0.01) % 100000 <= 2.5


# --- Python packages

def home_assistant():
    """`netdata`: what Home Assistant reads agents with."""
    from netdata import Netdata

    async def read():
        agent = Netdata("127.0.0.1", port=PORT)
        try:
            await agent.get_info()
            await agent.get_chart("fed.all")
            await agent.get_alarms()
            await agent.get_allmetrics()
            return agent.info, agent.values, agent.alarms, agent.metrics
        finally:
            await agent.close()

    info, values, alarms, metrics = asyncio.run(read())
    assert info["mirrored_hosts"] == ["served", "kid"], info["mirrored_hosts"]
    assert set(values) == {"time", "sec", "Mix Name", "zero"} and is_fed(values["time"], values["sec"]), values
    assert {a["name"]: a["status"] for a in alarms["alarms"].values()} == {"it_is_warm": "WARNING", "it_is_quiet": "CLEAR"}, alarms
    chart = metrics["fed.all"]
    assert chart["name"] == "fed.byname" and chart["units"] == "things" and chart["dimensions"]["mix"]["name"] == "Mix Name", chart
    assert chart["dimensions"]["zero"]["value"] == 0 and "hid" in chart["dimensions"], chart


def pandas():
    """`netdata-pandas`."""
    from netdata_pandas.data import get_alarm_log, get_allmetrics, get_chart_list, get_data

    for host in (f"127.0.0.1:{PORT}", f"127.0.0.1:{PORT}/host/kid"):
        assert {"fed.all", "fed.heat"} <= set(get_chart_list(host)), host
        frame = get_data([host], ["fed.all", "fed.heat"], after=-6, before=-2, points=5, ffill=False)
        columns = {"fed.all|sec", "fed.all|Mix Name", "fed.all|zero", "fed.all|hid", "fed.heat|core"}
        # `dimensions=*` asks for hidden ones, too.
        assert set(frame.columns) == columns and len(frame) >= 4, frame
        known = frame["fed.all|sec"].dropna()
        assert len(known) >= 4 and all(is_fed(int(at), value) for at, value in known.items()), frame
    log = get_alarm_log(f"127.0.0.1:{PORT}")
    assert ["it_is_warm", "WARNING"] in log[["name", "status"]].values.tolist(), log
    metrics = get_allmetrics(f"127.0.0.1:{PORT}", charts=["fed.all"], wide=True)
    assert metrics["fed.all|zero"].iloc[0] == 0 and abs(metrics["fed.all|sec"].iloc[0] - time.time() % 100000) < 10, metrics


def nd(*words, host="", fails=False):
    done = subprocess.run([f"{BIN}/nd", "--url", URL + host, "--json", *words], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "400"})
    assert (done.returncode != 0) == fails, done.stdout[-500:] + done.stderr[-500:]
    return done.stdout


def netdata_cli():
    """`nd` of netdata-cli."""
    assert "served" in nd("info") and "pong" in nd("ping")
    assert {"fed.all", "fed.heat"} <= {c["id"] for c in json.loads(nd("charts", "fed"))}
    assert json.loads(nd("chart", "fed.all", host="/host/kid"))["title"] == "Everything (fed.byname)"
    data = json.loads(nd("data", "fed.all", "--after", "-6", "--points", "6", "--options", "flip"))
    assert data["labels"][1] == "sec" and any(is_fed(row[0], row[1]) for row in data["data"] if row[1] is not None), data
    assert [a["name"] for a in json.loads(nd("alarms"))] == ["it_is_warm"]
    assert {a["name"] for a in json.loads(nd("alarms", "--all"))} == {"it_is_warm", "it_is_quiet"}
    assert any(e["name"] == "it_is_warm" for e in json.loads(nd("alarm-log")))
    assert "fed.byname" in nd("allmetrics", "--format", "prometheus")
    table = nd("function", "streaming")
    assert "kid" in table and "served" in table, table
    nd("chart", "no.such", fails=True)


def tempcli():
    """`tempcli`: the history of sensors."""
    program = f"import sys\nfrom tempcli import main as it\nit.NETDATA = {URL!r}\nsys.argv = ['tempcli', *sys.argv[1:]]\nit.main()"
    run = lambda *words: subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=30, check=True).stdout
    plain = re.sub(r"\x1b\[\d+m", "", run())
    assert re.search(r"core +40\.\d°C", plain), plain
    assert re.search(r"\d\d:\d\d +40\.\d", re.sub(r"\x1b\[\d+m", "", run("--last", "1m", "--points", "10")))


def llm_agent():
    """The tools of `netdata-llm-agent`, without the models that call them."""
    place = importlib.util.find_spec("netdata_llm_agent").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("tools", f"{place}/tools.py")
    tools = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tools)
    info = json.loads(tools.get_info(URL))
    assert info["hostname"] == "served" and [h["hostname"] for h in info["mirrored_hosts"]] == ["served", "kid"], info
    assert info["charts-count"] >= 3 and info["collectors"], info
    assert "fed.byname" in tools.get_charts(URL, search_term="fed")
    for url in (URL, f"{URL}/host/kid"):
        chart = json.loads(tools.get_chart_info(url, "fed.all"))
        assert chart["dimensions"][:2] == ["sec", "mix"] and chart["data_url"] == "/api/v1/data?chart=fed.byname", chart
        tools.get_chart_data(url, "fed.all", after=-10)
    assert "it_is_warm" in tools.get_alarms(URL, active=True) and "it_is_quiet" in tools.get_alarms(URL, all=True)
    assert "Mix Name" in tools.get_current_metrics(URL) or "mix" in tools.get_current_metrics(URL)


# --- the shell

def shell():
    """What scripts do: `eval` of all metrics, one number of a query, a badge."""
    script = """
        eval "$(curl -sSf "$1/api/v1/allmetrics")"; echo "$NETDATA_FED_BYNAME_ZERO $NETDATA_ALARM_FED_HEAT_IT_IS_WARM_STATUS"
        curl -sSf --compressed "$1/host/kid/api/v1/data?chart=fed.all&dimensions=zero&after=-5&points=1&format=ssv"; echo
        curl -sSf -o /dev/null -w '%{http_code} %{content_type}\\n' "$1/api/v1/badge.svg?chart=fed.all&alarm=it_is_warm"
        curl -sSf -o /dev/null "$1/api/v1/chart?chart=no.such" 2>/dev/null || echo "exit $?"
    """
    done = subprocess.run(["sh", "-ec", script, "sh", URL], capture_output=True, text=True, timeout=30)
    assert done.stdout.split("\n")[:4] == ["0 WARNING", "0", "200 image/svg+xml", "exit 22"], done.stdout + done.stderr


# --- Prometheus

JOBS = {
    "average": ("/api/v1/allmetrics", {"format": "prometheus", "types": "yes", "help": "yes"}),
    "raw": ("/api/v1/allmetrics", {"format": "prometheus_all_hosts", "source": "as-collected"}),
    "sum": ("/api/v1/allmetrics", {"format": "prometheus", "source": "sum", "names": "no", "timestamps": "no"}),
    "kid": ("/host/kid/api/v1/allmetrics", {"format": "prometheus", "source": "as-collected", "variables": "yes"}),
}


def scrapes(port):
    job = lambda name, path, words: {
        "job_name": name, "metrics_path": path, "params": {k: [v] for k, v in words.items()}, "honor_labels": True,
        "static_configs": [{"targets": [f"127.0.0.1:{PORT}"]}]}
    # JSON is YAML.
    return json.dumps({"global": {"scrape_interval": "3s", "scrape_timeout": "3s"}, "scrape_configs": [job(n, *j) for n, j in JOBS.items()]})


def prometheus():
    """Debian's Prometheus, four jobs of it, and promtool."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = tempfile.mkdtemp(prefix="clients-")
    with open(f"{place}/p.yml", "w") as config:
        config.write(scrapes(port))
    log = open(f"{place}/log", "w")
    process = subprocess.Popen([PROMETHEUS, f"--config.file={place}/p.yml", f"--storage.tsdb.path={place}/db", f"--web.listen-address=127.0.0.1:{port}"],
                               stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=place)
    query = lambda text: ask(f"/api/v1/query?query={urllib.parse.quote(text)}", f"http://127.0.0.1:{port}")["data"]["result"]
    try:
        seen = lambda: {r["metric"]["job"] for r in query("sum_over_time(up[2m]) >= 4")} == set(JOBS)
        wait_for("four scrapes of each job", 90, seen)
        # What it does not understand it never takes; that one scrape comes too late is the machine's.
        targets = lambda: ask("/api/v1/targets", f"http://127.0.0.1:{port}")["data"]["activeTargets"]
        healthy = lambda: {t["labels"]["job"]: (t["health"], t["lastError"]) for t in targets()} == {name: ("up", "") for name in JOBS}
        wait_for("all targets to be up", 30, healthy)
        raw = query('netdata_fed_all{job="raw",dimension="sec"}[2m]')
        assert {r["metric"]["instance"] for r in raw} == {"served", "kid"}, raw
        for series in raw:
            assert all(is_fed(int(at), float(value)) for at, value in series["values"]), series
        assert query('netdata_fed_all{job="kid",dimension="zero"}'), "nothing of the child by its own path"
        average = query('netdata_fed_all_things_average{job="average",dimension="Mix Name",chart="fed.byname"}')
        assert average and 0 <= float(average[0]["value"][1]) < 25, average
        assert query('netdata_fed_all_sum{job="sum",dimension="mix",chart="fed.all"}'), "no sums"
        counts = query('netdata_fed_count_total{job="raw",dimension="n"}[2m]')
        for series in counts:
            (t0, a), (t1, b) = series["values"][0], series["values"][-1]
            assert t1 - t0 < 5 or 7 <= (float(b) - float(a)) / (t1 - t0) <= 13, series
    finally:
        process.terminate()
        process.wait(20)
        log.close()
        shutil.rmtree(place, ignore_errors=True)
    promtool = os.path.join(os.path.dirname(PROMETHEUS), "promtool")
    for words in ("", "&source=as-collected", "&source=sum&names=no&timestamps=no"):
        with urllib.request.urlopen(f"{URL}/api/v1/allmetrics?format=prometheus{words}", timeout=10) as answer:
            done = subprocess.run([promtool, "check", "metrics"], input=answer.read(), capture_output=True, timeout=30)
        assert b"error while linting" not in done.stderr, done.stderr[:500]


def main():
    wait_for("samples here and of the child", 90, lambda: all(
        sum(row[1] is not None for row in ask(f"{host}/api/v1/data?chart=fed.all&after=-12&points=12")["data"]) >= 10 for host in ("", "/host/kid")))
    wait_for("the alarms", 30, lambda: ask("/api/v1/alarms")["alarms"])
    wait_for("their log", 30, lambda: any(e["status"] == "WARNING" for e in ask("/api/v1/alarm_log")))
    failed = []
    for client in (home_assistant, pandas, netdata_cli, tempcli, llm_agent, shell, *([prometheus] if PROMETHEUS else [])):
        began = time.monotonic()
        try:
            client()
            print(f"ok      {client.__name__} ({time.monotonic() - began:.1f} s): {client.__doc__.splitlines()[0]}")
        except Exception as error:
            failed.append(client.__name__)
            text = f"{type(error).__name__}: {getattr(error, 'stderr', None) or error}"
            print(f"FAILED  {client.__name__}: {text[:1500]}")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


main()
