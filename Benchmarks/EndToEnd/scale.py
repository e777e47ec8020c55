#!/usr/bin/env python3
"""Measures what must not depend on how much else there is: CPU per request beside many routes and agents, idle WebSockets, event loops.

    scale.py [--bin DIR] [--seconds 3] [--rounds 3] [--tests routes,agents,idle,loops,latency]

DIR holds release builds of kiteproxy, tunnelclient and ManyAgents. Needs nginx, wrk and cc. Prints a table per test; figures to quote
are ratios within one run.
"""
import argparse, json, resource, statistics, subprocess, sys, tempfile, time

from compare import BROWSER_HEAD, HTTP_BACKEND, WS_BACKEND, Bench, cpu, resident, wait_port

LIMITS = ["--max-agents-per-user", "4096", "--max-names-per-user", "100000"]


class Scale(Bench):
    def gateway(self, *flags, threads=1):
        """A gateway with one agent in front of the HTTP backend; returns both and where the gateway's files are."""
        data = tempfile.mkdtemp(dir=self.dir)
        environment = {"KITE_HOME": data, "HOME": data}
        gateway = self.spawn(f"{self.arguments.bin}/kiteproxy", "serve", "--listen", "127.0.0.1:27000", "--domain", "app.test",
                             "--data-dir", data, "--admin-listen", "127.0.0.1:27098", "--kontrol-listen", "127.0.0.1:27040",
                             "--threads", str(threads), *LIMITS, *flags, env=environment)
        wait_port(27000)
        return gateway, data

    def agent(self, data, backend=HTTP_BACKEND, name="bench", threads=1):
        return self.spawn(f"{self.arguments.bin}/tunnelclient", "http", f"127.0.0.1:{backend}", "--name", name, "--threads",
                          str(threads), "--gateway", "http://127.0.0.1:27000", env={"KITE_HOME": data, "HOME": data})

    def wrk(self, seconds, connections=64, threads=1):
        head = [part for field in ["Host: bench.app.test"] + BROWSER_HEAD for part in ("-H", field)]
        command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", *head, "http://127.0.0.1:27000/small"]
        return self.parse(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def cost(self, processes):
        """CPU microseconds per request of each process, and requests per second: medians over the rounds."""
        self.wrk(1)
        rows = []
        for _ in range(self.arguments.rounds):
            before = [cpu(p.pid) for p in processes]
            result = self.wrk(self.arguments.seconds)
            rows.append([(cpu(p.pid) - b) / max(result["n"], 1) * 1e6 for p, b in zip(processes, before)] + [result["rate"]])
            if result["errs"]:
                sys.exit(f"{result['errs']} requests failed")
        return [statistics.median(column) for column in zip(*rows)]

    def beside(self, label, agents, tunnels):
        gateway, data = self.gateway()
        agent = self.agent(data)
        processes = [gateway, agent]
        try:
            self.ready("bench.app.test", "/small")
            if agents:
                many = subprocess.Popen([f"{self.arguments.bin}/ManyAgents", "http://127.0.0.1:27000", f"{data}/kite.key",
                                         str(agents), str(tunnels)], stdout=subprocess.PIPE, text=True)
                processes.append(many)
                if many.stdout.readline().strip() != "ready":
                    raise RuntimeError("the agents did not start")
                time.sleep(1)
            ours, theirs, rate = self.cost([gateway, agent])
            print(f"{label:34}{ours:10.1f}{theirs:10.1f}{ours + theirs:10.1f}{rate:10.0f}{resident(gateway.pid) / 2**20:12.1f}", flush=True)
        finally:
            self.stop(processes)

    def idle(self, count):
        gateway, data = self.gateway("--max-connections-per-address", "100000")
        agent = self.agent(data, WS_BACKEND)
        try:
            self.ready("bench.app.test", "/ws")
            time.sleep(1)
            before = [resident(p.pid) for p in (gateway, agent)]
            load = subprocess.Popen([f"{self.dir}/loadgen", "idle", "127.0.0.1", "27000", "bench.app.test", "/ws", str(count), "128"],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            opened = json.loads(load.stdout.readline())["open"]
            time.sleep(3)
            each = [(resident(p.pid) - b) / opened for p, b in zip((gateway, agent), before)]
            start = [cpu(p.pid) for p in (gateway, agent)]
            time.sleep(10)
            busy = [(cpu(p.pid) - s) / 10 * 100 for p, s in zip((gateway, agent), start)]
            print(f"{opened} of {count} open: {each[0]:.0f} + {each[1]:.0f} bytes each, {busy[0]:.2f} % + {busy[1]:.2f} % of a core at rest; "
                  f"1,000,000 would take {each[0] * 1e6 / 2**30:.2f} + {each[1] * 1e6 / 2**30:.2f} GiB besides what the kernel holds for sockets")
            load.stdin.close()
            load.wait(60)
        finally:
            self.stop([gateway, agent])

    def loops(self):
        for threads in (1, 2):
            gateway, data = self.gateway(threads=threads)
            agent = self.agent(data, threads=threads)
            try:
                self.ready("bench.app.test", "/small")
                time.sleep(1)
                ours, theirs, rate = self.cost([gateway, agent])
                print(f"{threads} event loops{'':20}{ours:10.1f}{theirs:10.1f}{ours + theirs:10.1f}{rate:10.0f}", flush=True)
            finally:
                self.stop([gateway, agent])

    def latency(self):
        """2,000 requests a second, evenly spaced, alone and while 200 other connections come and go a second."""
        for peer in ("nginx", "kite"):
            processes, host = self.start(peer, HTTP_BACKEND)
            try:
                wait_port(27000)
                self.ready(host, "/small")
                time.sleep(0.5)
                for churn in (False, True):
                    command = [f"{self.dir}/loadgen", "pace", "127.0.0.1", "27000", host, "/small", "64", "2000", str(self.arguments.seconds)]
                    other = None
                    if churn:
                        other = subprocess.Popen([sys.executable, "-c", CHURN, host, str(self.arguments.seconds + 1)])
                        time.sleep(0.3)
                    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
                    if other:
                        other.wait()
                    print(f"{peer:8}{'with churn' if churn else 'alone':12}p50 {result['p50']:8.0f} us   p99 {result['p99']:8.0f} us", flush=True)
            finally:
                self.stop(list(processes.values()))


CHURN = """
import socket, sys, time
host, end = sys.argv[1], time.time() + float(sys.argv[2])
while time.time() < end:
    began = time.time()
    with socket.create_connection(("127.0.0.1", 27000)) as s:
        s.sendall(f"GET /small HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n".encode())
        while s.recv(4096): pass
    time.sleep(max(0, 0.005 - (time.time() - began)))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=".build/release")
    parser.add_argument("--tests", default="routes,agents,idle,loops,latency")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=int, default=9000)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    scale = Scale(arguments)
    columns = f"{'gateway':>10}{'agent':>10}{'total':>10}{'per s':>10}"
    try:
        for test in arguments.tests.split(","):
            print(f"\n{test}" + ("" if test in ("idle", "latency") else ": CPU us per request"))
            if test in ("routes", "agents"):
                print(f"{'':34}{columns}{'gateway MiB':>12}")
            if test == "routes":
                scale.beside("1 route", 0, 0)
                scale.beside("10,001 routes of 158 agents", 157, 64)
            elif test == "agents":
                scale.beside("1 agent", 0, 0)
                scale.beside("1,001 agents", 1000, 1)
            elif test == "idle":
                scale.idle(arguments.idle)
            elif test == "loops":
                print(f"{'':34}{columns}")
                scale.loops()
            elif test == "latency":
                scale.latency()
            else:
                sys.exit(f"there is no test {test}")
    finally:
        scale.close()


if __name__ == "__main__":
    main()
