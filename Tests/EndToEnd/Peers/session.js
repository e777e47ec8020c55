// What a page or a program does with a kite over one transport: calls `square`, has the kite call a method of its own, passes a callback,
// calls what is not there. Resolves with what happened. `connect(transport)` opens the SockJS session, or a raw WebSocket for "raw".
function session(connect, transport) {
  return new Promise((resolve) => {
    const seen = {}, callbacks = [];
    const socket = connect(transport);
    const end = (error) => { if (error) seen.error = String(error); socket.close(); resolve(seen); };
    setTimeout(() => end("nothing for 10 s"), 10000);

    const call = (method, withArgs, paths, answer) => {
      const numbered = {};
      for (const [path, callback] of [...paths, [["0", "responseCallback"], answer]]) numbered[callbacks.push(callback) - 1] = path;
      socket.send(JSON.stringify({
        method, callbacks: numbered, links: [],
        arguments: [{ kite: { name: "page", username: "anonymous", id: "page-" + transport, environment: "test", region: "test", version: "1.0.0", hostname: "browser" },
                      withArgs, responseCallback: "[Function]" }],
      }));
    };
    const step = (name, method, withArgs, paths = []) => new Promise((done) =>
      call(method, withArgs, paths, ({ error, result }) => { seen[name] = error ? error : result; done(); }));

    socket.onerror = () => {};
    socket.onclose = (event) => end(seen.done ? null : `closed: ${event.code} ${event.reason}`);
    socket.onmessage = ({ data }) => {
      const { method, arguments: given, callbacks: numbered } = JSON.parse(data);
      if (typeof method === "number") return callbacks[method](...given);
      // The kite calls the page: `twice` doubles its argument.
      const [options] = given;
      const [id] = Object.entries(numbered).find(([, path]) => path.map(String).join() === "0,responseCallback");
      if (method === "twice") socket.send(JSON.stringify({ method: Number(id), arguments: [{ error: null, result: options.withArgs[0] * 2 }], callbacks: {} }));
    };
    socket.onopen = async () => {
      seen.transport = socket.transport || "raw";
      await step("square", "square", [4]);
      await step("callPage", "callPage", [21]);
      seen.counted = [];
      const counted = new Promise((done) => { seen.count = (n) => { seen.counted.push(n); if (n === 3) done(); }; });
      await step("count", "count", ["[Function]"], [[["0", "withArgs", "0"], seen.count]]);
      await counted;
      delete seen.count;
      seen.unknown = await new Promise((done) => call("nosuch", [], [], ({ error }) => done(error && error.type)));
      seen.done = true;
      end();
    };
  });
}

if (typeof module === "object") module.exports = session;
