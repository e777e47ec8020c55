/// The page at `/` of the admin listener: one file, nothing from elsewhere, refreshed by its own script.

enum Dashboard {
    static let html = """
        <!doctype html>
        <html lang="en">
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>KiteProxy</title>
        <style>
        :root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
        body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
        h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin-top: 2rem; }
        .figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1px; background: var(--line);
          border: 1px solid var(--line); }
        .figures div { background: Canvas; padding: .6rem .8rem; } .figures b { display: block; font-size: 1.4rem; font-weight: 600; }
        table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .35rem .6rem .35rem 0;
          border-bottom: 1px solid var(--line); overflow-wrap: anywhere; } th { font-weight: 500; opacity: .7; }
        .bad { color: #c0392b; } .good { color: #27864a; } #state { font-weight: 400; font-size: 1rem; }
        </style>
        <h1>KiteProxy <span id="state"></span></h1>
        <section class="figures" id="figures"></section>
        <h2>Routes</h2>
        <table><thead><tr><th>name</th><th>kind</th><th>owner</th><th>public URL</th><th>targets</th><th>lanes</th><th>serves</th></tr></thead>
        <tbody id="routes"></tbody></table>
        <h2>Agents</h2>
        <table><thead><tr><th>user</th><th>address</th><th>lanes</th><th>tunnels</th></tr></thead>
        <tbody id="agents"></tbody></table>
        <script>
        const element = (id) => document.getElementById(id);
        const cell = (text, kind) => { const td = document.createElement("td"); td.textContent = text ?? "";
          if (kind) td.className = kind; return td; };
        const row = (...cells) => { const tr = document.createElement("tr"); tr.append(...cells); return tr; };
        const text = async (path) => (await fetch(path)).text();
        const parse = (metrics) => { const values = {};
          for (const line of metrics.split("\\n")) { const match = /^([a-z_]+)(\\{.*\\})? ([-+0-9.e]+|NaN)$/i.exec(line);
            if (match) { values[match[1]] = (values[match[1]] ?? 0) + Number(match[3]); if (match[2]) values[match[1] + match[2]] = Number(match[3]); } }
          return values; };
        const size = (bytes) => { let unit = 0; while (bytes >= 1024 && unit < 4) { bytes /= 1024; unit++; }
          return bytes.toFixed(unit ? 1 : 0) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][unit]; };
        let before;
        async function refresh() {
          try {
            const [metrics, ready, routes, agents] = await Promise.all([text("/metrics"), fetch("/readyz"), text("/api/routes"), text("/api/agents")]);
            const state = element("state");
            state.textContent = ready.ok ? "ready" : "not ready: " + (await ready.text()).trim();
            state.className = ready.ok ? "good" : "bad";
            const v = parse(metrics), now = performance.now(), total = v.kiteproxy_requests_total ?? 0;
            const rate = before ? (total - before.total) * 1000 / (now - before.now) : 0;
            before = { total, now };
            element("figures").replaceChildren(...[["requests/s", rate.toFixed(1)], ["requests", total],
              ["5xx", v['kiteproxy_requests_total{class="5xx"}'] ?? 0], ["connections", v.kiteproxy_connections_open],
              ["lanes", v.kiteproxy_lanes_open], ["streams", v.kiteproxy_streams_open], ["parked", v.kiteproxy_requests_parked],
              ["in", size(v.kiteproxy_received_bytes_total ?? 0)], ["out", size(v.kiteproxy_sent_bytes_total ?? 0)],
              ["memory", size(v.process_resident_memory_bytes ?? 0)]].map(([name, value]) => { const div = document.createElement("div");
              const b = document.createElement("b"); b.textContent = value; div.append(b, name); return div; }));
            element("routes").replaceChildren(...JSON.parse(routes).routes.map((r) => row(cell(r.name), cell(r.kind), cell(r.owner),
              cell(r.publicURL), cell(r.targets.join(", ")), cell(r.lanes), cell(r.isServing ? "yes" : "no", r.isServing ? "good" : "bad"))));
            element("agents").replaceChildren(...JSON.parse(agents).agents.map((a) => row(cell(a.user), cell(a.address),
              cell(a.lanes), cell(a.tunnels.join(", ")))));
          } catch (error) { element("state").textContent = "gateway does not answer"; element("state").className = "bad"; }
        }
        refresh(); setInterval(refresh, 2000);
        </script>
        </html>

        """
}
