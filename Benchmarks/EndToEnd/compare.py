#!/usr/bin/env python3
"""Measures KiteProxy beside nginx, HAProxy and `ssh -R` in one run, as CPU time per unit of work.

    compare.py [--bin DIR] [--tests http,conn,big,ws,idle,tls,hs] [--peers nginx,haproxy,ssh,kite] [--seconds 5] [--rounds 3]

DIR holds the release builds of `kiteproxy` and `tunnelclient` (default .build/release). Needs nginx,
haproxy, openssh-server, wrk, cc and libssl-dev (Debian packages). Everything runs on 127.0.0.1, one
peer at a time, one worker thread each, and is stopped at the end. The figure to quote is the ratio to
nginx in the same run: it holds on a noisy machine, absolute figures do not.

Per test: CPU microseconds per operation of the gateway and of the agent (user + system, from the
process clocks), operations per second, p50 and p99 in microseconds. `idle` gives resident bytes per
idle WebSocket that has carried one message.
"""
import argparse, json, os, re, resource, shutil, socket, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
HTTP_BACKEND, WS_BACKEND = 27900, 27901
TESTS = ["http", "conn", "big", "ws", "idle", "tls", "hs"]
BROWSER_HEAD = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5", "Accept-Encoding: gzip, deflate, br",
    "Cookie: session=abcdefghijklmnopqrstuvwxyz0123456789; theme=dark",
    "Referer: http://app.test/some/page",
]
NGINX_BACKEND = """
worker_processes 1; pid %(dir)s/b.pid; error_log %(dir)s/b.err; daemon off;
events { worker_connections 19000; multi_accept on; }
http { access_log off; sendfile on; tcp_nopush on; keepalive_timeout 600; keepalive_requests 100000000;
  open_file_cache max=100; default_type application/octet-stream; %(temp)s
  server { listen 127.0.0.1:27900 backlog=4096; root %(dir)s/www; } }
"""
NGINX_PROXY = """
worker_processes 1; pid %(dir)s/p.pid; error_log %(dir)s/p.err; daemon off;
events { worker_connections 19000; multi_accept on; }
http { access_log off; tcp_nodelay on; keepalive_timeout 600; keepalive_requests 100000000; %(temp)s
  map $http_upgrade $cu { default upgrade; '' ''; }
  upstream b { server 127.0.0.1:%(backend)s; keepalive 256; keepalive_requests 100000000; keepalive_timeout 600s; }
  ssl_certificate %(dir)s/cert.pem; ssl_certificate_key %(dir)s/key.pem; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off;
  server { listen 127.0.0.1:27000 backlog=4096; listen 127.0.0.1:27043 ssl backlog=4096;
    location / { proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $cu;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_read_timeout 600s; proxy_max_temp_file_size 0; } } }
"""
HAPROXY = """
global
  nbthread 1
  maxconn 9500
  tune.ssl.cachesize 0
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout tunnel 600s
frontend f
  bind 127.0.0.1:27000 backlog 4096
  bind 127.0.0.1:27043 ssl crt %(dir)s/both.pem backlog 4096
  option forwardfor
  default_backend b
backend b
  http-reuse always
  server s 127.0.0.1:%(backend)s pool-max-conn 512
"""
SSHD = """
Port 27022
ListenAddress 127.0.0.1
HostKey %(dir)s/ssh_host
AuthorizedKeysFile %(dir)s/ssh_id.pub
PidFile %(dir)s/sshd.pid
StrictModes no
UsePAM no
LogLevel ERROR
"""


def free(port):
    for _ in range(100):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    sys.exit(f"port {port} is taken")


def wait_port(port, seconds=15):
    end = time.time() + seconds
    while time.time() < end:
        with socket.socket() as s:
            if not s.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")


def tree(root):
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = open(f"/proc/{entry}/stat").read()
            except OSError:
                continue
            children.setdefault(int(text[text.rindex(")") + 2:].split()[1]), []).append(int(entry))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu(root):
    """CPU seconds used by a process tree, from the per-process clocks (nanosecond resolution)."""
    total = 0.0
    for pid in tree(root):
        try:
            total += time.clock_gettime((~pid << 3) | 2)
        except OSError:
            pass
    return total


def resident(root):
    total = 0
    for pid in tree(root):
        try:
            total += sum(int(l.split()[1]) * 1024 for l in open(f"/proc/{pid}/smaps_rollup") if l.startswith("Rss:"))
        except OSError:
            pass
    return total


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.dir = tempfile.mkdtemp(prefix="kite-bench-")
        os.chmod(self.dir, 0o755)
        os.mkdir(f"{self.dir}/www")
        open(f"{self.dir}/www/small", "w").write("x" * 128)
        open(f"{self.dir}/www/10m", "wb").write(os.urandom(10 << 20))
        run = lambda *c: subprocess.run(c, check=True, capture_output=True)
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
            "-subj", "/CN=app.test", "-addext", "subjectAltName=DNS:app.test,DNS:*.app.test,IP:127.0.0.1",
            "-keyout", f"{self.dir}/key.pem", "-out", f"{self.dir}/cert.pem")
        open(f"{self.dir}/both.pem", "w").write(open(f"{self.dir}/cert.pem").read() + open(f"{self.dir}/key.pem").read())
        for name in ("ssh_host", "ssh_id"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self.dir}/{name}")
        for name, libraries in (("loadgen", []), ("wsecho", ["-lcrypto"]), ("handshakes", ["-lssl", "-lcrypto"])):
            run("cc", "-O2", "-o", f"{self.dir}/{name}", f"{HERE}/{name}.c", *libraries)
        for port in (HTTP_BACKEND, WS_BACKEND):
            free(port)
        self.values = {"dir": self.dir, "temp": " ".join(
            f"{kind}_temp_path {self.dir}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))}
        self.backends = [self.spawn("nginx", "-c", self.file("backend.conf", NGINX_BACKEND)),
                         self.spawn(f"{self.dir}/wsecho", str(WS_BACKEND))]
        wait_port(HTTP_BACKEND), wait_port(WS_BACKEND)

    def file(self, name, text, **more):
        open(f"{self.dir}/{name}", "w").write(text % {**self.values, **more})
        return f"{self.dir}/{name}"

    def spawn(self, *command, env=None):
        log = open(f"{self.dir}/{os.path.basename(command[0])}.log", "ab")
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})

    @staticmethod
    def stop(processes):
        for p in reversed(processes):
            p.terminate()
            try:
                p.wait(8)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()

    def start(self, peer, backend):
        """Starts a peer in front of a backend; returns its processes by role, its plain and its TLS address and the host name."""
        for port in (27000, 27043):
            free(port)
        if peer == "nginx":
            return {"gateway": self.spawn("nginx", "-c", self.file("proxy.conf", NGINX_PROXY, backend=backend))}, "app.test"
        if peer == "haproxy":
            return {"gateway": self.spawn("haproxy", "-db", "-f", self.file("haproxy.cfg", HAPROXY, backend=backend))}, "app.test"
        if peer == "ssh":
            os.makedirs("/run/sshd", exist_ok=True)
            gateway = self.spawn("/usr/sbin/sshd", "-D", "-e", "-f", self.file("sshd.conf", SSHD))
            wait_port(27022)
            agent = self.spawn("ssh", "-N", "-T", "-F", "none", "-p", "27022", "-i", f"{self.dir}/ssh_id", "-c", "aes128-gcm@openssh.com",
                               "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                               "-o", "ExitOnForwardFailure=yes", "-R", f"127.0.0.1:27000:127.0.0.1:{backend}", "root@127.0.0.1")
            return {"gateway": gateway, "agent": agent}, "app.test"
        data = tempfile.mkdtemp(dir=self.dir)
        environment = {"KITE_HOME": data, "HOME": data}
        gateway = self.spawn(f"{self.arguments.bin}/kiteproxy", "serve", "--listen", "127.0.0.1:27000", "--listen-tls", "127.0.0.1:27043",
                             "--tls-cert", f"{self.dir}/cert.pem", "--tls-key", f"{self.dir}/key.pem", "--domain", "app.test",
                             "--data-dir", data, "--admin-listen", "127.0.0.1:27098", "--kontrol-listen", "127.0.0.1:27040",
                             "--threads", "1", env=environment)
        wait_port(27000)
        agent = self.spawn(f"{self.arguments.bin}/tunnelclient", "http", f"127.0.0.1:{backend}", "--name", "bench",
                           "--gateway", "http://127.0.0.1:27000", env=environment)
        return {"gateway": gateway, "agent": agent}, "bench.app.test"

    def ready(self, host, path):
        for _ in range(200):
            try:
                with socket.create_connection(("127.0.0.1", 27000), 2) as s:
                    s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                    if path == "/ws" or s.recv(64).startswith(b"HTTP/1.1 200"):
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"{host}{path} does not answer 200")

    def command(self, test, host):
        seconds = self.arguments.seconds
        head = [x for h in [f"Host: {host}"] + (BROWSER_HEAD if test in ("http", "tls") else []) for x in ("-H", h)]
        wrk = ["wrk", "-t1", f"-d{seconds}s", "--latency"] + head
        tool = lambda name, *a: [f"{self.dir}/{name}", *map(str, a)]
        return {
            "http": wrk + ["-c64", "http://127.0.0.1:27000/small"],
            "big": wrk + ["-c4", "http://127.0.0.1:27000/10m"],
            "tls": wrk + ["-c64", "https://127.0.0.1:27043/small"],
            "conn": tool("handshakes", "127.0.0.1", 27000, host, "plain:/small", 4, seconds),
            "hs": tool("handshakes", "127.0.0.1", 27043, host, "-", 4, seconds),
            "ws": tool("loadgen", "ws", "127.0.0.1", 27000, host, "/ws", 64, 128, seconds),
        }[test]

    @staticmethod
    def parse(output):
        if output.lstrip().startswith("{"):
            return json.loads(output.strip().splitlines()[-1])
        micro = lambda s: float(re.match(r"[\d.]+", s)[0]) * {"us": 1, "ms": 1e3, "s": 1e6}[re.search(r"[a-z]+", s)[0]]
        errors = sum(map(int, re.findall(r"(?:Non-2xx or 3xx responses|connect|read|write|timeout):? (\d+)", output)))
        return {"n": int(re.search(r"(\d+) requests in", output)[1]), "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]),
                "p50": micro(re.search(r"50%\s+(\S+)", output)[1]), "p99": micro(re.search(r"99%\s+(\S+)", output)[1]), "errs": errors}

    def measure(self, peer, test):
        backend = WS_BACKEND if test in ("ws", "idle") else HTTP_BACKEND
        processes, host = self.start(peer, backend)
        try:
            wait_port(27000)
            self.ready(host, "/ws" if backend == WS_BACKEND else "/small")
            time.sleep(0.5)
            if test == "idle":
                count = 2000 if peer == "ssh" else self.arguments.idle
                before = {role: resident(p.pid) for role, p in processes.items()}
                load = subprocess.Popen([f"{self.dir}/loadgen", "idle", "127.0.0.1", "27000", host, "/ws", str(count), "128"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                opened = json.loads(load.stdout.readline())["open"]
                time.sleep(2)
                result = {role: (resident(p.pid) - before[role]) / opened for role, p in processes.items()}
                load.stdin.close()
                load.wait(30)
                return {"cost": result, "rate": opened, "p50": 0, "p99": 0, "errs": count - opened}
            command = self.command(test, host)
            warm = [re.sub(r"^-d\d+s$", "-d1s", c) for c in command]
            if warm != command:
                subprocess.run(warm, capture_output=True)
            before = {role: cpu(p.pid) for role, p in processes.items()}
            output = subprocess.run(command, capture_output=True, text=True, timeout=self.arguments.seconds + 60)
            after = {role: cpu(p.pid) for role, p in processes.items()}
            parsed = self.parse(output.stdout)
            return {"cost": {role: (after[role] - before[role]) / max(parsed["n"], 1) * 1e6 for role in processes},
                    "rate": parsed["rate"], "p50": parsed.get("p50", 0), "p99": parsed.get("p99", 0), "errs": parsed.get("errs", 0)}
        finally:
            self.stop(list(processes.values()))

    def close(self):
        self.stop(self.backends)
        shutil.rmtree(self.dir, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=".build/release")
    parser.add_argument("--tests", default=",".join(TESTS))
    parser.add_argument("--peers", default="nginx,haproxy,ssh,kite")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=int, default=8000, help="idle WebSockets to open")
    parser.add_argument("--json", help="also write the medians to this file")
    parser.add_argument("--markdown", help="also write them as a table to this file")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    bench, medians = Bench(arguments), {}
    try:
        for test in arguments.tests.split(","):
            unit = "bytes per connection" if test == "idle" else "CPU us per operation"
            print(f"\n{test}: {unit}\n{'peer':9}{'gateway':>10}{'agent':>10}{'total':>10}{'x nginx':>9}{'per s':>10}{'p50 us':>9}{'p99 us':>9}{'errors':>8}")
            peers = [p for p in arguments.peers.split(",") if not (p == "ssh" and test in ("tls", "hs"))]
            results = {p: [] for p in peers}
            for _ in range(1 if test == "idle" else arguments.rounds):
                for peer in peers:
                    try:
                        results[peer].append(bench.measure(peer, test))
                    except Exception as error:
                        print(f"{peer:9} failed: {error}")
            for peer, runs in results.items():
                if not runs:
                    continue
                median = lambda f: statistics.median(f(r) for r in runs)
                gateway, agent = median(lambda r: r["cost"]["gateway"]), median(lambda r: r["cost"].get("agent", 0))
                row = {"gateway": gateway, "agent": agent, "total": gateway + agent, "rate": median(lambda r: r["rate"]),
                       "p50": median(lambda r: r["p50"]), "p99": median(lambda r: r["p99"]), "errors": sum(r["errs"] for r in runs)}
                medians[f"{test}.{peer}"] = row
                base = medians.get(f"{test}.nginx", {}).get("total")
                ratio = f"{row['total'] / base:.2f}" if base else "-"
                print(f"{peer:9}{gateway:10.1f}{agent:10.1f}{row['total']:10.1f}{ratio:>9}{row['rate']:10.0f}{row['p50']:9.0f}{row['p99']:9.0f}{row['errors']:8}", flush=True)
    finally:
        bench.close()
    if arguments.json:
        json.dump(medians, open(arguments.json, "w"), indent=1)
    if arguments.markdown:
        peers = [p for p in arguments.peers.split(",") if any(f".{p}" in key for key in medians)]
        with open(arguments.markdown, "w") as file:
            file.write("| test | " + " | ".join(peers) + " | kite / nginx |\n|---|" + "---:|" * (len(peers) + 1) + "\n")
            for test in arguments.tests.split(","):
                cells = []
                for peer in peers:
                    row = medians.get(f"{test}.{peer}")
                    parts = [f"{row['gateway']:,.1f}"] + ([f"{row['agent']:,.1f}"] if row["agent"] else []) if row else ["-"]
                    cells.append(" + ".join(parts) + (f" = {row['total']:,.1f}" if len(parts) > 1 else ""))
                kite, nginx = medians.get(f"{test}.kite"), medians.get(f"{test}.nginx")
                cells.append(f"{kite['total'] / nginx['total']:.2f}" if kite and nginx else "-")
                file.write(f"| {test} | " + " | ".join(cells) + " |\n")


if __name__ == "__main__":
    main()
