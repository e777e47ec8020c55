/// The page of the demo: a browser calls the kite and the kite calls the page, over SockJS through the tunnel, by the client that every
/// gateway serves.

enum DemoPage {
    static let html = """
        <!doctype html>
        <html lang="en">
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>KiteProxy demo</title>
        <style>
        :root { color-scheme: light dark; }
        body { font: 16px/1.55 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }
        h1 { font-size: 1.4rem; } section { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); padding: 1rem 0; }
        input { font: inherit; width: 6rem; } button { font: inherit; padding: .2rem .8rem; }
        output { font-weight: 600; } #log { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; opacity: .8; }
        </style>
        <h1>A kite that listens nowhere</h1>
        <p>This page came through a tunnel from a kite that has no port of its own. Connection: <output id="state">connecting</output></p>
        <section>
          <p>The page calls the kite: <code>square</code> of <input id="number" type="number" value="4"> is <output id="square">…</output></p>
          <p>The kite calls the page: <button id="introduce">introduce me</button> <output id="greeting"></output></p>
          <p>The kite calls back as often as it likes: <button id="countdown">count down</button> <output id="count"></output></p>
        </section>
        <section id="log"></section>
        <script type="module">
        import { Kite } from "/-/kite.js";
        const element = (id) => document.getElementById(id);
        const log = (text) => { element("log").textContent += text + "\\n"; };
        const transport = new URLSearchParams(location.search).get("transport");
        const kite = new Kite(new URL("kite", document.baseURI), { transports: transport ? [transport] : undefined });
        kite.register("page.describe", () => { log("the kite called page.describe"); element("greeting").dataset.called = "yes";
          return { language: navigator.language, width: innerWidth, height: innerHeight }; });
        kite.on("connect", ({ transport }) => { element("state").textContent = "connected over " + transport; });
        kite.on("disconnect", ({ error }) => { element("state").textContent = "disconnected: " + error.message; });
        kite.on("retry", ({ attempt, delay }) => log(`attempt ${attempt} in ${delay} ms`));
        const square = async () => { element("square").textContent = await kite.tell("square", Number(element("number").value)); };
        const introduce = async () => { element("greeting").textContent = await kite.tell("introduce"); };
        const countdown = () => kite.tell("countdown", 5, (value) => { element("count").textContent = value; log("countdown " + value); });
        const report = (work) => work().catch((error) => log("error: " + error.message));
        try {
          await kite.connect();
          element("number").addEventListener("input", () => report(square));
          element("introduce").addEventListener("click", () => report(introduce));
          element("countdown").addEventListener("click", () => report(countdown));
          await report(square);
          await report(introduce);
        } catch (error) { element("state").textContent = "failed: " + error.message; }
        </script>
        </html>

        """
}
