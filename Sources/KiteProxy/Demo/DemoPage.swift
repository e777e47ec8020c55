/// The page of the demo: a browser calls the kite and the kite calls the page, over SockJS through the tunnel. Its client is small, complete
/// and depends on nothing; it may serve as a start for one's own.

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
        <script type="module" src="client.js"></script>
        <script type="module">
        import { KiteClient } from "./client.js";
        const element = (id) => document.getElementById(id);
        const log = (text) => { element("log").textContent += text + "\\n"; };
        const transport = new URLSearchParams(location.search).get("transport") ?? undefined;
        const kite = new KiteClient(new URL("kite", document.baseURI), { transport });
        kite.methods["page.describe"] = () => { log("the kite called page.describe"); element("greeting").dataset.called = "yes";
          return { language: navigator.language, width: innerWidth, height: innerHeight }; };
        kite.onclose = (reason) => { element("state").textContent = "closed: " + reason; };
        const square = async () => { element("square").textContent = await kite.tell("square", Number(element("number").value)); };
        const introduce = async () => { element("greeting").textContent = await kite.tell("introduce"); };
        const countdown = () => kite.tell("countdown", 5, (value) => { element("count").textContent = value; log("countdown " + value); });
        const report = (work) => work().catch((error) => log("error: " + error.message));
        try {
          await kite.connect();
          element("state").textContent = "connected over " + kite.transport;
          element("number").addEventListener("input", () => report(square));
          element("introduce").addEventListener("click", () => report(introduce));
          element("countdown").addEventListener("click", () => report(countdown));
          await report(square);
          await report(introduce);
        } catch (error) { element("state").textContent = "failed: " + error.message; }
        </script>
        </html>

        """

    /// An ES module: dnode over SockJS, by WebSocket or, where that does not pass, by XHR polling.
    static let client = """
        // A kite client for browsers: dnode over SockJS. MIT licence, no dependencies.

        const random = (letters, length) => Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => letters[byte % letters.length]).join("");

        /** Messages over a WebSocket that carries SockJS frames. */
        class WebSocketTransport {
          constructor(session, onframe, onclose) { Object.assign(this, { session, onframe, onclose }); }
          open(timeout) {
            return new Promise((resolve, reject) => {
              const url = this.session + "/websocket";
              const socket = this.socket = new WebSocket(url.replace(/^http/, "ws"));
              const timer = setTimeout(() => { socket.close(); reject(new Error("no WebSocket in time")); }, timeout);
              let isOpen = false;
              socket.onmessage = ({ data }) => {
                if (data === "o") { isOpen = true; clearTimeout(timer); resolve(); } else if (data) this.onframe(data);
              };
              socket.onclose = ({ code }) => { clearTimeout(timer); if (isOpen) this.onclose("WebSocket closed with " + code); else reject(new Error("the WebSocket was not accepted")); };
            });
          }
          send(text) { this.socket.send(JSON.stringify([text])); }
          close() { this.socket.close(); }
        }

        /** Messages by polling: one request waits for what the kite sends, others bring what the page sends, in order. */
        class XHRTransport {
          constructor(session, onframe, onclose) { Object.assign(this, { session, onframe, onclose, queue: [], isSending: false, isClosed: false }); }
          async open() {
            const frame = await this.poll();
            if (frame !== "o") throw new Error("unexpected answer to the first poll");
            this.loop();
          }
          async poll() {
            this.abort = new AbortController();
            const response = await fetch(this.session + "/xhr", { method: "POST", signal: this.abort.signal, cache: "no-store" });
            if (!response.ok) throw new Error("poll answered " + response.status);
            return (await response.text()).replace(/\\n$/, "");
          }
          async loop() {
            try { while (!this.isClosed) { const frame = await this.poll(); if (frame) this.onframe(frame); } }
            catch (error) { if (!this.isClosed) this.end(error.message); }
          }
          send(text) { this.queue.push(text); this.flush(); }
          async flush() {
            if (this.isSending) return;
            this.isSending = true;
            try {
              while (this.queue.length && !this.isClosed) {
                const body = JSON.stringify(this.queue.splice(0));
                const response = await fetch(this.session + "/xhr_send", { method: "POST", body, headers: { "Content-Type": "text/plain" } });
                if (!response.ok) throw new Error("send answered " + response.status);
              }
            } catch (error) { this.end(error.message); } finally { this.isSending = false; }
          }
          end(reason) { if (this.isClosed) return; this.isClosed = true; this.onclose(reason); }
          close() { this.isClosed = true; this.abort?.abort(); }
        }

        export class KiteClient {
          /** @param url where the kite is, such as "https://gateway/proxy/demo/kite"
           *  @param options transport: "websocket" or "xhr" instead of the first that passes; timeout: of calls, in milliseconds */
          constructor(url, { transport, timeout = 15000 } = {}) {
            this.url = String(url).replace(/\\/$/, "");
            this.wanted = transport;
            this.timeout = timeout;
            this.methods = { "kite.ping": () => "pong" };
            this.callbacks = new Map();
            this.nextCallback = 0;
            this.onclose = () => {};
          }

          async connect() {
            const kinds = { websocket: WebSocketTransport, xhr: XHRTransport };
            const order = this.wanted ? [this.wanted] : ["websocket", "xhr"];
            let failure;
            for (const name of order) {
              const session = `${this.url}/${random("0123456789", 3)}/${random("abcdefghijklmnopqrstuvwxyz0123456789", 20)}`;
              const carrier = new kinds[name](session, (frame) => this.receive(frame), (reason) => this.closed(reason));
              try { await carrier.open(5000); this.carrier = carrier; this.transport = name; return this; } catch (error) { failure = error; }
            }
            throw failure;
          }

          /** Calls a method of the kite. Functions among the arguments can be called back by it. */
          tell(method, ...args) {
            return new Promise((resolve, reject) => {
              let timer;
              const response = (answer) => {
                clearTimeout(timer);
                this.callbacks.delete(response.id);
                const { error, result } = answer ?? {};
                if (error) reject(Object.assign(new Error(error.message ?? "failed"), { type: error.type })); else resolve(result);
              };
              const message = this.scrub([{ kite: { name: "browser", username: "anonymous", version: "1.0.0", environment: "", region: "", hostname: "", id: "" },
                withArgs: args, responseCallback: response }]);
              response.id = [...this.callbacks].find(([, callback]) => callback === response)[0];
              timer = setTimeout(() => { this.callbacks.delete(response.id); reject(new Error(`no answer to ${method} in time`)); }, this.timeout);
              this.send(method, message);
            });
          }

          close() { this.carrier?.close(); this.closed("closed by the page"); }

          // dnode: functions travel as numbers, with their places beside the arguments.

          scrub(args) {
            const callbacks = {};
            const walk = (value, path) => {
              if (typeof value === "function") {
                const id = this.nextCallback++;
                this.callbacks.set(id, value);
                callbacks[id] = path;
                return "[Function]";
              }
              if (Array.isArray(value)) return value.map((item, index) => walk(item, [...path, index]));
              if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, walk(item, [...path, name])]));
              return value;
            };
            return { arguments: args.map((value, index) => walk(value, [index])), callbacks };
          }

          unscrub({ arguments: args, callbacks }) {
            for (const [id, path] of Object.entries(callbacks ?? {})) {
              let place = args;
              for (const step of path.slice(0, -1)) { if (place === null || typeof place !== "object" || !Object.hasOwn(place, step)) { place = undefined; break; } place = place[step]; }
              const last = path.at(-1);
              if (place && typeof place === "object" && Object.hasOwn(place, last)) place[last] = (...values) => this.send(Number(id), this.scrub(values));
            }
            return args;
          }

          send(method, message) { this.carrier.send(JSON.stringify({ method, ...message })); }

          receive(frame) {
            if (frame[0] === "a") for (const text of JSON.parse(frame.slice(1))) this.dispatch(JSON.parse(text));
            else if (frame[0] === "m") this.dispatch(JSON.parse(JSON.parse(frame.slice(1))));
            else if (frame[0] === "c") { const [code, reason] = JSON.parse(frame.slice(1)); this.carrier?.close(); this.closed(`${code} ${reason}`); }
          }

          async dispatch(message) {
            const args = this.unscrub({ arguments: message.arguments ?? [], callbacks: message.callbacks });
            if (typeof message.method === "number") return this.callbacks.get(message.method)?.(...args);
            const { withArgs, responseCallback } = args[0] ?? {};
            const answer = typeof responseCallback === "function" ? responseCallback : () => {};
            const method = Object.hasOwn(this.methods, message.method) ? this.methods[message.method] : undefined;
            if (!method) return answer({ error: { type: "methodNotFound", message: "Method not found: " + message.method }, result: null });
            try { answer({ error: null, result: await method(...(withArgs ?? [])) ?? null }); }
            catch (error) { answer({ error: { type: "genericError", message: String(error.message ?? error) }, result: null }); }
          }

          closed(reason) { if (this.isClosed) return; this.isClosed = true; this.callbacks.clear(); this.onclose(reason); }
        }

        """
}
