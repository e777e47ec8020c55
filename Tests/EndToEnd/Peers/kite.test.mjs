// Tests of the module for web pages, without a browser: `node --test kite.test.mjs`. A scripted WebSocket stands for the network, and a server of
// Node's own for both XHR transports.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import http from "node:http";
import { afterEach, test as plain } from "node:test";

const folder = new URL("../../../Sources/KiteProxy/Gateway/Browser/", import.meta.url);
const source = await readFile(new URL("kite.js", folder), "utf8");
// Node takes a .js file for CommonJS; a data URL says what it is.
const module = await import(`data:text/javascript;base64,${Buffer.from(source).toString("base64")}`);
const { Kite, KiteError, connect, findKites } = module;

const test = (name, body) => plain(name, { timeout: 10_000 }, body);
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const next = (kite, event) => new Promise((done) => { const off = kite.on(event, (detail) => { off(); done(detail); }); });
async function until(condition) { while (!condition()) await pause(2); }
const fails = (promise, type) => assert.rejects(promise, (error) => error instanceof KiteError && error.type === type);

/** Sockets that have been opened; `accept` decides what becomes of a new one. */
let sockets = [];
let accept = (socket) => socket.give("o");
class ScriptedWebSocket {
  bufferedAmount = 0;
  sent = [];
  constructor(url) { this.url = url; sockets.push(this); queueMicrotask(() => accept(this)); }
  give(data) { this.onmessage({ data }); }
  message(value) { this.give("a" + JSON.stringify([typeof value === "string" ? value : JSON.stringify(value)])); }
  send(frame) {
    const [message] = JSON.parse(frame);
    const parsed = JSON.parse(message);
    this.sent.push(parsed);
    queueMicrotask(() => this.answering?.(parsed));
  }
  close() { this.isClosed = true; }
  break(code = 1006) { this.onclose({ code }); }
  /** Answers calls as a kite does. */
  serve(methods) {
    this.answering = (message) => {
      if (typeof message.method !== "string") return;
      const [id] = Object.entries(message.callbacks).find(([, path]) => path.join() === "0,responseCallback");
      let answer;
      try { answer = { error: null, result: methods[message.method](...message.arguments[0].withArgs, message) }; } catch (error) { answer = { error, result: null }; }
      if (answer.result !== undefined) this.message({ method: Number(id), arguments: [answer], callbacks: {} });
    };
  }
}
globalThis.WebSocket = ScriptedWebSocket;

const kites = [];
const make = (options = {}, target = "http://gw.test/proxy/math") => { const kite = new Kite(target, { transports: ["websocket"], ...options }); kites.push(kite); return kite; };
async function open(options, methods, target) {
  const kite = await make(options, target).connect();
  const socket = sockets.at(-1);
  if (methods) socket.serve(methods);
  return { kite, socket };
}
afterEach(() => {
  for (const kite of kites.splice(0)) kite.close();
  [sockets, accept] = [[], (socket) => socket.give("o")];
});

// MARK: Calls

test("a call goes out as kites send it, and its answer comes back", async () => {
  const { kite, socket } = await open({ token: "t1", identity: { username: "alice" } }, { square: (number) => number * number });
  assert.equal(await kite.tell("square", 4), 16);
  const [message] = socket.sent;
  assert.deepEqual(Object.keys(message).sort(), ["arguments", "callbacks", "method"]);
  assert.deepEqual(message.callbacks, { 0: [0, "responseCallback"] });
  const [options] = message.arguments;
  assert.deepEqual(options.authentication, { type: "token", key: "t1" });
  assert.equal(options.responseCallback, "[Function]");
  assert.deepEqual(options.withArgs, [4]);
  assert.deepEqual(Object.keys(options.kite).sort(), ["environment", "hostname", "id", "name", "region", "username", "version"]);
  assert.equal(options.kite.username, "alice");
  assert.match(socket.url, /^ws:\/\/gw\.test\/proxy\/math\/\d{3}\/[a-z0-9]{20}\/websocket$/);
});

test("calls go out in the order in which they were made", async () => {
  const { kite, socket } = await open({}, { a: (n) => n });
  await Promise.all([1, 2, 3, 4].map((n) => kite.tell("a", n)));
  assert.deepEqual(socket.sent.map(({ arguments: [{ withArgs }] }) => withArgs[0]), [1, 2, 3, 4]);
});

test("answers of both shapes, errors of all shapes", async () => {
  const { kite, socket } = await open();
  const answer = async (...values) => {
    const call = kite.tell("m");
    const id = Object.keys(socket.sent.at(-1).callbacks)[0];
    socket.message({ method: Number(id), arguments: values });
    return call;
  };
  assert.equal(await answer({ error: null, result: 1 }), 1);
  assert.equal(await answer({ result: 2 }), 2);
  assert.equal(await answer(null, 3), 3);
  await assert.rejects(answer({ error: { type: "t", message: "m", code: "c", id: "i" }, result: null }),
    (error) => error instanceof KiteError && error.type === "t" && error.message === "m" && error.code === "c" && error.id === "i");
  await fails(answer({ error: { type: { toString: 1 }, message: [] } }), "genericError");
  await fails(answer({ error: "text" }), "genericError");
  await fails(answer({ type: "own", message: "two" }, null), "own");
  await fails(answer(), "invalidResponse");
  await fails(answer("x"), "invalidResponse");
});

test("an answer counts once, and one that comes too late is nothing", async () => {
  const { kite, socket } = await open();
  const call = kite.tell("m", { timeout: 20 });
  await fails(call, "timeout");
  for (const result of [1, 2]) socket.message({ method: 0, arguments: [{ error: null, result }] });
  socket.message({ method: 99, arguments: [] });
  assert.equal(kite.state, "connected");
});

test("options are the last argument only where they are nothing else", async () => {
  const { kite, socket } = await open({ timeout: 30 });
  const options = (...args) => { const call = kite.tell("m", ...args); call.catch(() => {}); return socket.sent.at(-1).arguments[0].withArgs; };
  assert.deepEqual(options(1, { timeout: 9 }), [1]);
  assert.deepEqual(options(1, { timeout: 9, other: 1 }), [1, { timeout: 9, other: 1 }]);
  assert.deepEqual(options(1, {}), [1, {}]);
  assert.deepEqual(options(1, [9]), [1, [9]]);
  kite.call("m", [{ timeout: 1 }]).catch(() => {});
  assert.deepEqual(socket.sent.at(-1).arguments[0].withArgs, [{ timeout: 1 }]);
  await fails(kite.tell("m"), "timeout");
  await fails(kite.tell("m", { timeout: 0 }), "argumentError");
  await fails(kite.tell(""), "argumentError");
});

test("a call can be given up", async () => {
  const { kite } = await open();
  const control = new AbortController();
  const call = kite.tell("m", { signal: control.signal, timeout: Infinity });
  control.abort(new Error("enough"));
  await assert.rejects(call, /enough/);
  await assert.rejects(kite.tell("m", { signal: control.signal }), /enough/);
});

// MARK: Functions

test("functions among the arguments are called any number of times, and forgotten when released", async () => {
  const seen = [];
  const callback = (...values) => seen.push(values);
  const { kite, socket } = await open({}, { watch: () => "ok" });
  await kite.tell("watch", { deep: [callback] }, callback);
  const { callbacks } = socket.sent[0];
  assert.deepEqual(callbacks, { 0: [0, "responseCallback"], 1: [0, "withArgs", 0, "deep", 0], 2: [0, "withArgs", 1] });
  socket.message({ method: 1, arguments: [1, "a"], callbacks: {} });
  socket.message({ method: 1, arguments: [2] });
  socket.message({ method: 2 });
  assert.deepEqual(seen, [[1, "a"], [2], []]);
  await kite.tell("watch", callback);
  assert.deepEqual(socket.sent[1].callbacks, { 3: [0, "responseCallback"], 1: [0, "withArgs", 0] });
  kite.release(callback);
  socket.message({ method: 1, arguments: [3] });
  socket.message({ method: 2, arguments: [3] });
  assert.equal(seen.length, 3);
});

test("functions of the kite can be called, with functions; paths of numbers and of texts", async () => {
  const { kite, socket } = await open({ methods: { take: (one, [two]) => { one(1, () => {}); two.call("x"); } } });
  socket.message({ method: "take", arguments: [{ withArgs: ["[Function]", [{ call: "[Function]" }]], responseCallback: "[Function]" }],
    callbacks: { 7: ["0", "withArgs", "0"], 8: [0, "withArgs", 1, 0, "call"], 9: ["0", "responseCallback"] }, links: [] });
  await until(() => socket.sent.length === 3);
  assert.deepEqual(socket.sent, [
    { method: 7, arguments: [1, "[Function]"], callbacks: { 0: [1] } }, { method: 8, arguments: ["x"], callbacks: {} },
    { method: 9, arguments: [{ error: null, result: null }], callbacks: {} },
  ]);
  socket.break();
});

test("what cannot be sent is refused, and leaves nothing behind", async () => {
  const { kite, socket } = await open({ maxCallbacks: 3 }, { m: () => "ok" });
  const circle = {}; circle.self = circle;
  let deep = 1; for (let depth = 0; depth < 70; depth++) deep = [deep];
  for (const value of [circle, deep, 1n]) await fails(kite.tell("m", () => {}, value), "argumentError");
  const fine = [() => {}, () => {}];
  assert.equal(await kite.tell("m", ...fine), "ok");
  await fails(kite.tell("m", () => {}, () => {}), "sendError");
  socket.bufferedAmount = 17 << 20;
  await fails(kite.tell("m"), "sendError");
  socket.bufferedAmount = 0;
  assert.equal(await kite.tell("m", new Date(0), undefined, { toJSON: () => "j" }), "ok");
  assert.deepEqual(socket.sent.at(-1).arguments[0].withArgs, ["1970-01-01T00:00:00.000Z", null, "j"]);
});

// MARK: Methods of the page

test("the kite calls methods of the page", async () => {
  const { kite, socket } = await open({ maxServedCalls: 1 });
  const ask = async (method, withArgs) => {
    const count = socket.sent.length;
    socket.message({ method, arguments: [{ kite: {}, authentication: null, withArgs, responseCallback: "[Function]" }], callbacks: { 4: [0, "responseCallback"] } });
    await until(() => socket.sent.length > count);
    const { method: to, arguments: [answer] } = socket.sent.at(-1);
    assert.equal(to, 4);
    return answer;
  };
  kite.register("sum", async (...values) => values.reduce((a, b) => a + b, 0));
  kite.register("fail", () => { throw new KiteError("mine", "no"); });
  kite.register("fail2", () => { throw new TypeError("plain"); });
  kite.register("circle", () => { const circle = {}; circle.self = circle; return circle; });
  assert.deepEqual(await ask("sum", [1, 2]), { error: null, result: 3 });
  assert.deepEqual(await ask("sum", null), { error: null, result: 0 });
  assert.deepEqual(await ask("sum", 5), { error: null, result: 5 });
  assert.deepEqual(await ask("kite.ping", []), { error: null, result: "pong" });
  assert.deepEqual((await ask("fail", [])).error, { type: "mine", message: "no", code: "", id: "" });
  assert.equal((await ask("fail2", [])).error.message, "plain");
  assert.equal((await ask("circle", [])).error.type, "genericError");
  for (const name of ["nosuch", "constructor", "__proto__", "toString"]) assert.equal((await ask(name, [])).error.type, "methodNotFound");
  kite.register("slow", () => new Promise(() => {}));
  socket.message({ method: "slow", arguments: [{}] });
  assert.equal((await ask("sum", [1])).error.type, "requestLimitError");
  kite.unregister("sum");
  assert.equal((await ask("sum", [1])).error.type, "methodNotFound");
  for (const bad of [["", () => {}], ["x"], [1, () => {}]]) assert.throws(() => kite.register(...bad), KiteError);
});

test("a method without a response callback, and without options, is served", async () => {
  let calls = 0;
  const { kite, socket } = await open({ methods: { m: () => { calls += 1; } } });
  for (const given of [[], [null], [{}], [{ responseCallback: "[Function]" }], ["x"], [{ responseCallback: 4 }]]) socket.message({ method: "m", arguments: given });
  socket.message({ method: "m" });
  await pause(5);
  assert.equal(calls, 7);
  assert.equal(kite.state, "connected");
});

// MARK: Hostile peers

const hostile = [
  "", "x", "null", "1", "[]", '"a"', "{}", '{"method":null}', '{"method":{}}', '{"method":true,"arguments":[]}', '{"method":"m","arguments":{}}', '{"method":"m","arguments":"x"}',
  '{"method":"m","arguments":[],"callbacks":1}', '{"method":"m","arguments":[1],"callbacks":{"0":[]}}', '{"method":"m","arguments":[1],"callbacks":{"0":[1]}}',
  '{"method":"m","arguments":[1],"callbacks":{"0":[-1]}}', '{"method":"m","arguments":[1],"callbacks":{"0":[0.5]}}', '{"method":"m","arguments":[1],"callbacks":{"0":["length"]}}',
  '{"method":"m","arguments":[1],"callbacks":{"0":[0,"a"]}}', '{"method":"m","arguments":[1],"callbacks":{"0":"0"}}', '{"method":"m","arguments":[1],"callbacks":{"0":null}}',
  '{"method":"m","arguments":[1],"callbacks":{"x":[0]}}', '{"method":"m","arguments":[1],"callbacks":{"-1":[0]}}', '{"method":"m","arguments":[1],"callbacks":{"99999999999999999999":[0]}}',
  '{"method":"m","arguments":[{}],"callbacks":{"0":[0,"__proto__"]}}', '{"method":"m","arguments":[{}],"callbacks":{"0":[0,"__proto__","polluted"]}}',
  '{"method":"m","arguments":[{}],"callbacks":{"0":[0,"constructor","prototype","polluted"]}}', '{"method":"m","arguments":[{"__proto__":{"polluted":1}}],"callbacks":{"0":[0,"__proto__","polluted"]}}',
  '{"method":"m","arguments":[{"\\u005f_proto__":{"polluted":1}}],"callbacks":{"0":[0,"__proto__","polluted"]}}', '{"method":"m","arguments":[],"callbacks":{"0":["__proto__","polluted"]}}',
  '{"method":"m","arguments":[1],"callbacks":{"0":[{}]}}', '{"method":"m","arguments":[1],"callbacks":{"0":[[0]]}}', '{"method":"m","arguments":[1],"callbacks":{"0":[null]}}',
  '{"method":"m","arguments":["a"],"callbacks":{"0":[0,0]}}', '{"method":"m","arguments":[1],"callbacks":{"0":[0],"1":[0,"name"]}}',
  `{"method":"m","arguments":[${Array(2000).fill(1)}],"callbacks":{${Array.from({ length: 2000 }, (_, index) => `"${index}":[${index}]`)}}}`,
  "[".repeat(100000), `{"method":"m","constructor":${'{"a":'.repeat(20000)}1${"}".repeat(20000)}}`,
];

test("a message that is none ends the connection and touches no prototype", async () => {
  for (const message of hostile) {
    let called = false;
    const { kite, socket } = await open({ reconnect: false, methods: { m: () => { called = true; } } });
    const gone = next(kite, "disconnect");
    socket.message(message);
    const { error } = await gone;
    assert.equal(error.type, "protocolError", message.slice(0, 200));
    assert.ok(socket.isClosed);
    assert.equal(called, false, message.slice(0, 200));
  }
  assert.equal({}.polluted, undefined);
  assert.equal([].polluted, undefined);
  assert.equal((() => {}).polluted, undefined);
  assert.equal(typeof {}.constructor, "function");
});

test("frames that are none end the connection", async () => {
  for (const frame of ["x", "a", "a{", "a{}", "a[1]", "a[null]", "m1", "m{", "c", "c[", "c1", new ArrayBuffer(1), "a" + "x".repeat(2000)]) {
    const { kite, socket } = await open({ reconnect: false, maxReceivedBytes: 1000 });
    const gone = next(kite, "disconnect");
    socket.give(frame);
    assert.equal((await gone).error.type, "protocolError", String(frame).slice(0, 20));
    assert.ok(socket.isClosed);
  }
});

test("messages before the session is open are not heard", async () => {
  accept = (socket) => socket.give('a["{\\"method\\":\\"m\\"}"]');
  await fails(make({ methods: { m: () => assert.fail() } }).connect(), "protocolError");
});

test("keys that lead to prototypes are taken out, others stay", async () => {
  let seen;
  const { socket } = await open({ methods: { m: (value) => { seen = value; } } });
  socket.message('{"method":"m","arguments":[{"withArgs":[{"__proto__":{"a":1},"b":{"constructor":{"prototype":{"c":1}},"d":1},"constructor":"smith","e":["__proto__"],"\\u005f\\u005fproto__":2,"f":null}]}]}');
  await until(() => seen);
  assert.deepEqual(JSON.stringify(seen), '{"b":{"d":1},"constructor":"smith","e":["__proto__"],"f":null}');
});

test("exceptions of the page's functions reach nobody else", async () => {
  const reported = [];
  globalThis.reportError = (error) => reported.push(error.message);
  const { kite, socket } = await open({}, { m: () => "ok" });
  await kite.tell("m", () => { throw new Error("one"); }, async () => { throw new Error("two"); });
  kite.on("disconnect", () => { throw new Error("three"); });
  socket.message({ method: 1 });
  socket.message({ method: 2 });
  await pause(2);
  socket.break();
  delete globalThis.reportError;
  assert.deepEqual(reported, ["one", "two", "three"]);
  assert.equal(kite.state, "waiting");
});

// MARK: Connections

test("the query is kept, wherever it stands; other URLs are refused", async () => {
  const { socket } = await open({}, undefined, "wss://gw.test/proxy/?kiteID=1#x");
  assert.match(socket.url, /^wss:\/\/gw\.test\/proxy\/\d{3}\/[a-z0-9]{20}\/websocket\?kiteID=1$/);
  for (const bad of ["/relative", "ftp://x/", "javascript:alert(1)", "http://user:secret@x/", "", "http://"]) {
    assert.throws(() => new Kite(bad), (error) => error.type === "argumentError" && !error.message.includes("secret"), bad);
  }
  assert.throws(() => new Kite("http://x", { transports: ["carrier-pigeon"] }), KiteError);
  assert.throws(() => new Kite("http://x", { transports: [] }), KiteError);
  assert.throws(() => new Kite({ name: "math" }), KiteError);
  await fails(connect("ftp://x/"), "argumentError");
  await fails(new Kite("http://x").tell("m"), "disconnect");
});

test("a broken connection is made again; calls without answer fail, calls made meanwhile wait", async () => {
  const { kite, socket } = await open({ reconnect: { minDelay: 10 } });
  const events = [];
  for (const event of ["connect", "disconnect", "retry", "close"]) kite.on(event, () => events.push(event));
  const lost = kite.tell("m");
  accept = (socket) => { socket.serve({ m: (n) => n }); socket.give("o"); };
  socket.break();
  await fails(lost, "disconnect");
  assert.equal(kite.state, "waiting");
  assert.equal(kite.transport, null);
  assert.deepEqual(await Promise.all([kite.tell("m", 1), kite.tell("m", 2)]), [1, 2]);
  assert.equal(sockets.length, 2);
  assert.notEqual(sockets[0].url, sockets[1].url);
  assert.deepEqual(events, ["disconnect", "retry", "connect"]);
  kite.close();
  assert.deepEqual(events.slice(3), ["disconnect", "close"]);
  assert.ok(sockets[1].isClosed);
});

test("attempts come ever later, with jitter, and end where they are counted", async () => {
  const { kite, socket } = await open({ reconnect: { minDelay: 4, maxDelay: 20, attempts: 5 } });
  const delays = [];
  kite.on("retry", ({ attempt, delay }) => { assert.equal(attempt, delays.length + 1); delays.push(delay); });
  accept = (socket) => socket.break();
  const closed = next(kite, "close");
  socket.break();
  const waiting = kite.tell("m");
  await fails(waiting, "disconnect");
  await closed;
  assert.equal(kite.state, "closed");
  assert.equal(sockets.length, 6);
  for (const [index, delay] of delays.entries()) {
    const most = Math.min(20, 4 * 2 ** index);
    assert.ok(delay >= Math.floor(most / 2) && delay <= most, `${delays}`);
  }
  accept = (socket) => socket.give("o");
  await kite.connect();
  assert.equal(kite.state, "connected");
});

test("a peer that accepts and breaks off at once is not asked ever faster", async () => {
  accept = (socket) => { socket.give("o"); setTimeout(() => socket.break(), 1); };
  const kite = make({ reconnect: { minDelay: 4, attempts: 4 } });
  const delays = [];
  kite.on("retry", ({ delay }) => delays.push(delay));
  const closed = next(kite, "close");
  await kite.connect();
  await closed;
  assert.equal(delays.length, 4);
  assert.ok(delays[3] > delays[0]);
});

test("without reconnection the end is the end; the first failure is one always", async () => {
  const { kite, socket } = await open({ reconnect: false });
  const gone = next(kite, "disconnect");
  socket.give('c[3000,"Go away!"]');
  const { error, willReconnect } = await gone;
  assert.equal(willReconnect, false);
  assert.equal(error.code, "3000");
  assert.equal(kite.state, "closed");
  await fails(kite.tell("m"), "disconnect");
  accept = (socket) => socket.break();
  await fails(make().connect(), "disconnect");
  accept = () => {};
  await fails(make({ connectTimeout: 10 }).connect(), "timeout");
});

test("close ends an attempt, a pause and calls that wait; nothing goes on", async () => {
  accept = () => {};
  const kite = make();
  const attempt = kite.connect();
  assert.equal(kite.connect(), attempt);
  await until(() => sockets.length === 1);
  const call = kite.tell("m");
  call.catch(() => {});
  kite.close();
  await fails(attempt, "disconnect");
  await fails(call, "disconnect");
  assert.ok(sockets[0].isClosed);
  accept = (socket) => socket.give("o");
  await kite.connect();
  sockets[1].break();
  assert.equal(kite.state, "waiting");
  kite.close();
  await pause(5);
  assert.equal(sockets.length, 2);
  assert.equal(kite.state, "closed");
});

test("listeners may close, and connect anew", async () => {
  const { kite, socket } = await open({ reconnect: { minDelay: 5 } });
  const events = [];
  for (const event of ["connect", "disconnect", "retry", "close"]) kite.on(event, () => events.push(event));
  const off = kite.on("disconnect", () => kite.close());
  socket.break();
  off();
  assert.equal(kite.state, "closed");
  assert.deepEqual(events, ["disconnect", "close"]);
  await kite.connect();
  let again;
  const stop = kite.on("disconnect", () => { again = kite.connect(); });
  kite.close();
  await again;
  assert.equal(kite.state, "connected");
  sockets.at(-1).break();
  await again;
  assert.equal(kite.state, "connected");
  stop();
  await pause(20);
  assert.equal(sockets.length, 4);
  assert.deepEqual(events.slice(2), ["connect", "disconnect", "connect", "disconnect", "connect"]);
  const single = await open({ reconnect: false });
  let anew;
  const end = single.kite.on("disconnect", () => { anew = single.kite.connect(); });
  single.socket.break();
  await anew;
  end();
  assert.equal(single.kite.state, "connected");
});

test("calls that wait are bounded in number and in time", async () => {
  accept = () => {};
  const kite = make({ maxWaitingCalls: 2, timeout: 15 });
  const attempt = kite.connect();
  const control = new AbortController();
  const calls = [kite.tell("m"), kite.tell("m", { signal: control.signal })];
  await fails(kite.tell("m"), "sendError");
  control.abort(new Error("enough"));
  await assert.rejects(calls[1], /enough/);
  await fails(calls[0], "timeout");
  kite.close();
  await fails(attempt, "disconnect");
});

test("heartbeats keep a connection; silence ends it", async () => {
  const { kite, socket } = await open({ silenceTimeout: 60, reconnect: false });
  let gone;
  kite.on("disconnect", ({ error }) => { gone = error; });
  const beat = setInterval(() => socket.give("h"), 10);
  await pause(150);
  assert.equal(gone, undefined);
  clearInterval(beat);
  await until(() => gone);
  assert.match(gone.message, /heard/);
  assert.ok(socket.isClosed);
});

// MARK: Who calls

test("a token that has expired is renewed once, for all calls that fail by it", async () => {
  let asked = 0;
  const valid = new Set(["t2"]);
  const check = (method) => ({ m: (value, message = value) => {
    if (!valid.has(message.arguments[0].authentication.key)) throw { type: "authenticationError", message: "token: token is expired" };
    return method;
  } });
  const { kite } = await open({ token: async () => `t${++asked}` }, check("ok"));
  assert.deepEqual(await Promise.all([kite.tell("m"), kite.tell("m"), kite.tell("m")]), ["ok", "ok", "ok"]);
  assert.equal(asked, 2);
  valid.clear();
  await fails(kite.tell("m"), "authenticationError");
  assert.equal(asked, 3);
  const fixed = await open({ token: "t0" }, check("ok"));
  await fails(fixed.kite.tell("m"), "authenticationError");
  const keyed = await open({ kiteKey: " k\n" }, { m: (message) => message.arguments[0].authentication });
  assert.deepEqual(await keyed.kite.tell("m"), { type: "kiteKey", key: "k" });
  const nobody = await open({}, { m: (message) => [message.arguments[0].authentication] });
  assert.deepEqual(await nobody.kite.tell("m"), [null]);
  await fails(make({ token: () => 1 }).connect(), "argumentError");
});

test("a kite is found through Kontrol, called with its token, which is renewed there", async () => {
  const asked = [];
  const identity = { username: "u", environment: "e", name: "math", version: "1.0.0", region: "r", hostname: "h", id: "i" };
  accept = (socket) => {
    if (socket.url.startsWith("ws://kontrol.test/kite/")) {
      socket.serve({
        getKites: (argument, message) => { asked.push(["getKites", argument, message.arguments[0].authentication]); return { kites: [
          { kite: identity, url: "http://gone.test/kite", token: "x" }, null, { url: 1 }, { kite: { ...identity, __proto__: null }, url: "http://math.test/kite?kiteID=7", token: "t1", keyId: "k" },
          { kite: identity, url: "javascript:1", token: "x" } ] }; },
        getToken: (argument) => { asked.push(["getToken", argument]); return "t2"; },
      });
    } else if (socket.url.startsWith("ws://math.test/kite/")) {
      socket.serve({ m: (message) => {
        const { key } = message.arguments[0].authentication;
        if (key !== "t2") throw { type: "authenticationError", message: "token is expired" };
        return key;
      } });
    } else { return socket.break(); }
    socket.give("o");
  };
  const kite = make({ kontrol: "http://kontrol.test/kite", kiteKey: "secret", reconnect: { minDelay: 5 } }, { name: "math", username: "u", environment: "e", other: 1 });
  await kite.connect();
  assert.equal(kite.url, "http://math.test/kite?kiteID=7");
  assert.equal(await kite.tell("m"), "t2");
  assert.deepEqual(asked, [
    ["getKites", { query: { username: "u", environment: "e", name: "math" } }, { type: "kiteKey", key: "secret" }], ["getToken", { ...identity, force: true }]]);
  for (const socket of sockets) if (socket.url.includes("math.test")) assert.ok(!JSON.stringify(socket.sent).includes("secret"));
  for (const socket of sockets) if (socket.url.includes("kontrol")) assert.ok(socket.isClosed);
  const found = await findKites({ name: "math" }, { kontrol: "http://kontrol.test/kite", kiteKey: "secret", transports: ["websocket"] });
  assert.deepEqual(found.map(({ url }) => url), ["http://gone.test/kite", "http://math.test/kite?kiteID=7", "javascript:1"]);
  assert.deepEqual(found[1], { kite: identity, url: "http://math.test/kite?kiteID=7", token: "t1", keyId: "k" });
  // After a break Kontrol is asked again: the kite may be elsewhere.
  asked.length = 0;
  const again = next(kite, "connect");
  sockets.find((socket) => socket.url.includes("math.test")).break();
  await again;
  assert.equal(asked[0][0], "getKites");
});

// MARK: The other transports

/** A SockJS server of both XHR transports: streams and polls are answered with `frames` as they come. */
async function withServer(behaviour, body) {
  const state = { frames: [], pushed: () => {}, received: [], polls: 0, streams: 0 };
  const server = http.createServer(async (request, response) => {
    const name = new URL(request.url, "http://x").pathname.split("/").at(-1);
    if (behaviour[name]?.(request, response, state)) return;
    if (name === "xhr_send") {
      let text = ""; for await (const part of request) text += part;
      state.received.push(...JSON.parse(text).map((message) => JSON.parse(message)));
      state.batches = (state.batches ?? 0) + 1;
      state.onmessage?.();
      return response.writeHead(204).end();
    }
    const isStream = name === "xhr_streaming";
    isStream ? state.streams++ : state.polls++;
    response.writeHead(200, { "Content-Type": "application/javascript" });
    if (isStream) response.write("h".repeat(2048) + "\n");
    if (!state.isOpen) { state.isOpen = true; state.frames.unshift("o"); }
    const flush = () => {
      while (state.frames.length) { response.write(state.frames.shift() + "\n"); if (!isStream || state.endStream) { state.pushed = () => {}; return response.end(); } }
    };
    state.pushed = flush;
    flush();
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  state.push = (value) => { state.frames.push(typeof value === "string" ? value : "a" + JSON.stringify([JSON.stringify(value)])); state.pushed(); };
  state.answer = (result) => {
    const message = state.received.at(-1);
    state.push({ method: Number(Object.keys(message.callbacks)[0]), arguments: [{ error: null, result }], callbacks: {} });
  };
  try { await body(`http://127.0.0.1:${server.address().port}/kite`, state); } finally { server.closeAllConnections(); server.close(); }
}

for (const transport of ["xhr-streaming", "xhr-polling"]) {
  test(`${transport}: calls in order, callbacks, text of any script, new requests after the old`, async () => {
    await withServer({}, async (url, state) => {
      const kite = make({ transports: [transport], methods: { hello: (name) => `hello ${name}` } }, url);
      await kite.connect();
      assert.equal(kite.transport, transport);
      state.onmessage = () => { if (state.received.at(-1).method === "m") state.answer("ä€😀\u2028"); };
      for (let round = 0; round < 4; round++) {
        state.endStream = round === 2;
        assert.equal(await kite.tell("m", round), "ä€😀\u2028");
      }
      state.onmessage = undefined;
      const calls = Array.from({ length: 50 }, (_, index) => kite.tell("n", index));
      calls.forEach((call) => call.catch(() => {}));
      await until(() => state.received.length === 54);
      assert.deepEqual(state.received.slice(4).map(({ arguments: [{ withArgs }] }) => withArgs[0]), Array.from({ length: 50 }, (_, index) => index));
      assert.ok(state.batches < 20);
      state.push("h");
      state.push({ method: "hello", arguments: [{ withArgs: ["page"], responseCallback: "[Function]" }], callbacks: { 3: [0, "responseCallback"] } });
      await until(() => state.received.length === 55);
      assert.deepEqual(state.received.at(-1), { method: 3, arguments: [{ error: null, result: "hello page" }], callbacks: {} });
      const gone = next(kite, "disconnect");
      state.push('c[3000,"Go away!"]');
      assert.equal((await gone).error.code, "3000");
    });
  });

  test(`${transport}: answers that are none, too large or empty end the connection`, async () => {
    const name = transport === "xhr-polling" ? "xhr" : "xhr_streaming";
    const answers = [[404, ""], [500, "o\n"], [200, ""], [200, "x\n"], [200, "h".repeat(5000)], [200, "a[" + " ".repeat(5000) + "]\n"], [204, ""]];
    for (const [status, text] of answers) {
      await withServer({ [name]: (_, response, state) => { if (state.isOpen) response.writeHead(status).end(status === 204 ? undefined : text); state.endStream = true; return state.isOpen; } }, async (url) => {
        const kite = make({ transports: [transport], reconnect: false, maxReceivedBytes: 4000 }, url);
        const gone = next(kite, "close");
        await kite.connect().catch(() => {});
        await gone;
        assert.equal(kite.state, "closed", `${status} ${text.slice(0, 10)}`);
      });
    }
  });

  test(`${transport}: what waits to be sent is bounded; a refused message ends the connection`, async () => {
    await withServer({ xhr_send: (_, response, state) => { (state.held ??= []).push(response); return true; } }, async (url, state) => {
      const kite = make({ transports: [transport], maxQueuedBytes: 5000, reconnect: false }, url);
      await kite.connect();
      const first = kite.tell("m", "x".repeat(4000));
      first.catch(() => {});
      await fails(kite.tell("m", "x".repeat(4000)), "sendError");
      await until(() => state.held);
      state.held[0].writeHead(404).end();
      await fails(first, "disconnect");
      assert.equal(kite.state, "closed");
    });
  });
}

test("where a WebSocket does not pass the next transport is tried; the good one comes first from then on", async () => {
  await withServer({ xhr_streaming: (_, response) => { response.writeHead(200); response.write("h".repeat(2048) + "\n"); return true; } }, async (url, state) => {
    accept = (socket) => socket.break();
    const kite = make({ transports: undefined, connectTimeout: 100, reconnect: { minDelay: 5 } }, url);
    await kite.connect();
    assert.equal(kite.transport, "xhr-polling");
    assert.equal(sockets.length, 1);
    const again = next(kite, "connect");
    await until(() => state.polls === 2);
    state.isOpen = false;
    state.push('c[1000,"x"]');
    await again;
    assert.equal(kite.transport, "xhr-polling");
    assert.equal(sockets.length, 1);
  });
});

// MARK: The types

test("the types name what there is, and nothing else", async () => {
  const types = await readFile(new URL("kite.d.ts", folder), "utf8");
  const exported = [...types.matchAll(/^export (?:class|function|const) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual([...new Set(exported)].sort(), Object.keys(module).sort());
  const body = types.slice(types.indexOf("export class Kite {"), types.indexOf("/** Makes a `Kite`"));
  const declared = new Set([...body.matchAll(/^  (?:readonly )?(\w+)[(<:]/gm)].map(([, name]) => name));
  assert.deepEqual([...declared].sort(), Object.getOwnPropertyNames(Kite.prototype).sort());
  const defaults = new Set(Object.keys(eval(`(${source.match(/const DEFAULTS = ({[^}]+})/)[1]})`)));
  for (const name of [...defaults, "token", "kiteKey", "kontrol", "identity", "methods", "reconnect"]) assert.match(types, new RegExp(`^  ${name}\\?: `, "m"), name);
});
