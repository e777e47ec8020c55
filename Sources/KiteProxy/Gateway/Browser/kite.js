// A kite client for web pages: dnode over SockJS, with nothing else needed. Types and documentation: kite.d.ts beside this file.
// Whatever comes from the other side is taken for hostile: it is bounded, and nothing of it reaches a prototype.

const DEFAULTS = {
  transports: ["websocket", "xhr-streaming", "xhr-polling"],
  timeout: 30_000,
  connectTimeout: 5_000,
  silenceTimeout: 35_000,
  maxQueuedBytes: 16 << 20,
  maxReceivedBytes: 64 << 20,
  maxCallbacks: 10_000,
  maxWaitingCalls: 1_000,
  maxServedCalls: 256,
  credentials: "same-origin",
};
const RECONNECT = { minDelay: 500, maxDelay: 30_000, attempts: Infinity };
const QUERY_FIELDS = ["username", "environment", "name", "version", "region", "hostname", "id"];
const DEEPEST = 60; // peers refuse what is nested deeper than 64 with what is around it
const MOST_PLACES = 1_024;
/** A connection that lasted so long was a good one: the next attempt is made as soon as after the first failure. */
const STABLE = 5_000;

/** What goes wrong with calls and connections. */
export class KiteError extends Error {
  constructor(type, message, { code = "", id = "" } = {}) {
    super(message);
    this.name = "KiteError";
    this.type = type;
    this.code = code;
    this.id = id;
  }
}

// MARK: Small things

const isObject = (value) => typeof value === "object" && value !== null;
/** A short text. Objects, whose conversion may be anything, are none. */
const text = (value, most = 4_096) => (value == null || typeof value === "object" || typeof value === "function" ? "" : String(value)).slice(0, most);
const letters = "abcdefghijklmnopqrstuvwxyz0123456789";
const random = (alphabet, length) => Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => alphabet[byte % alphabet.length]).join("");
const report = (error) => (globalThis.reportError ?? console.error)(error);
/** A timer that is never later than timers can be; none for infinity. */
const after = (milliseconds, body) => (milliseconds < Infinity ? setTimeout(body, Math.min(milliseconds, 0x7fffffff)) : undefined);

function asError(error, type = "connectError") {
  return error instanceof KiteError ? error : new KiteError(type, text(error?.message ?? error));
}

/** A kite's error as it came. */
function remoteError(error) {
  if (!isObject(error)) return new KiteError("genericError", text(error));
  return new KiteError(text(error.type) || "genericError", text(error.message), { code: text(error.code), id: text(error.id) });
}

/** JSON without the keys by which a careless merge would reach a prototype. */
function parse(json) {
  if (!/__proto__|constructor|\\u00[567]/i.test(json)) return JSON.parse(json);
  return JSON.parse(json, (key, value) =>
    key === "__proto__" || (key === "constructor" && isObject(value) && Object.hasOwn(value, "prototype")) ? undefined : value);
}

/** The URL without its trailing slash, and the query, which every request carries. */
function parts(target) {
  let url;
  try { url = new URL(String(target), globalThis.document?.baseURI ?? globalThis.location?.href); }
  catch { throw new KiteError("argumentError", `Not a URL: ${text(target, 256)}`); }
  const scheme = { "http:": "http:", "https:": "https:", "ws:": "http:", "wss:": "https:" }[url.protocol];
  if (!scheme || url.username || url.password) throw new KiteError("argumentError", "A kite's URL is of http or https, and without a password");
  return { prefix: `${scheme}//${url.host}${url.pathname.replace(/\/+$/, "")}`, query: url.search };
}

// MARK: Transports

/** What all transports do with SockJS frames. The owner's `opened`, `received` and `closed` are called; after `closed` nothing is. */
class Transport {
  isOpen = false;
  isClosed = false;

  constructor(session, query, options, owner) {
    Object.assign(this, { session, query, options, owner });
  }

  address(name) { return `${this.session}/${name}${this.query}`; }

  frame(frame) {
    if (this.isClosed) return;
    this.owner.heard();
    try {
      switch (frame[0]) {
        case "o":
          if (!this.isOpen) { this.isOpen = true; this.owner.opened(); }
          break;
        case "h": case undefined: break;
        case "a": {
          const messages = JSON.parse(frame.slice(1));
          if (!Array.isArray(messages)) throw new KiteError("protocolError", "A frame without messages");
          for (const message of messages) if (!this.isClosed) this.message(message);
          break;
        }
        case "m": this.message(JSON.parse(frame.slice(1))); break;
        case "c": {
          const [code, reason] = JSON.parse(frame.slice(1));
          this.end(new KiteError("disconnect", `Closed by the other side: ${text(code, 8)} ${text(reason, 256)}`, { code: text(code, 8) }));
          break;
        }
        default: throw new KiteError("protocolError", "A frame of unknown kind");
      }
    } catch (error) { this.end(asError(error, "protocolError")); }
  }

  message(message) {
    if (typeof message !== "string" || !this.isOpen) throw new KiteError("protocolError", "A message that is no text, or before the session was open");
    this.owner.received(message);
  }

  /** Ends the transport because of an error and tells the owner. */
  end(error) {
    if (this.isClosed) return;
    this.close();
    this.owner.closed(error);
  }

  /** Ends the transport without a word to the owner. */
  close() {
    if (this.isClosed) return;
    this.isClosed = true;
    this.stop();
  }
}

class WebSocketTransport extends Transport {
  open() {
    const socket = (this.socket = new WebSocket(this.address("websocket").replace(/^http/, "ws")));
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") return this.end(new KiteError("protocolError", "A binary message"));
      if (data.length > this.options.maxReceivedBytes) return this.end(new KiteError("protocolError", "A frame that is too large"));
      this.frame(data);
    };
    socket.onclose = ({ code }) => this.end(new KiteError("disconnect", `The WebSocket was closed (${code})`, { code: String(code) }));
  }

  send(message) {
    const frame = JSON.stringify([message]);
    if (this.socket.bufferedAmount + frame.length > this.options.maxQueuedBytes) throw new KiteError("sendError", "Too much waits to be sent");
    this.socket.send(frame);
  }

  stop() { try { this.socket?.close(); } catch { /* it is closed then */ } }
}

/** Frames come as lines of answers, one answer after the other; messages go by requests of their own, in order. */
class FetchTransport extends Transport {
  control = new AbortController();
  queue = [];
  queuedBytes = 0;
  isSending = false;

  open() { this.receive().catch((error) => this.end(asError(error, "disconnect"))); }

  request(name, body) {
    const headers = body === undefined ? {} : { "Content-Type": "text/plain" };
    return fetch(this.address(name), { method: "POST", body, headers, signal: this.control.signal, cache: "no-store", credentials: this.options.credentials });
  }

  async receive() {
    while (!this.isClosed) {
      const response = await this.request(this.path);
      if (!response.ok || !response.body) throw new KiteError("disconnect", `The other side answered ${response.status}`, { code: String(response.status) });
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      let pieces = [], length = 0, frames = 0;
      for (;;) {
        const { done, value } = await reader.read();
        const lines = (done ? decoder.decode() : decoder.decode(value, { stream: true })).split("\n");
        for (const [index, line] of lines.entries()) {
          length += line.length;
          if (length > this.options.maxReceivedBytes) throw new KiteError("protocolError", "A frame that is too large");
          pieces.push(line);
          if (index === lines.length - 1) break;
          const frame = pieces.join("");
          [pieces, length] = [[], 0];
          if (frame.startsWith("hh")) continue; // what streams begin with
          if (frame) frames += 1;
          this.frame(frame);
        }
        if (done || this.isClosed) break;
      }
      if (this.isClosed) return void reader.cancel().catch(() => {});
      if (length > 0) { this.frame(pieces.join("")); frames += 1; }
      if (frames === 0) throw new KiteError("protocolError", "An answer without a frame");
    }
  }

  send(message) {
    if (this.queuedBytes + message.length > this.options.maxQueuedBytes) throw new KiteError("sendError", "Too much waits to be sent");
    this.queue.push(message);
    this.queuedBytes += message.length;
    if (!this.isSending) this.flush().catch((error) => this.end(asError(error, "disconnect")));
  }

  async flush() {
    this.isSending = true;
    while (this.queue.length && !this.isClosed) {
      let count = 0, bytes = 0;
      do bytes += this.queue[count++].length; while (count < this.queue.length && bytes + this.queue[count].length < 1 << 20);
      const response = await this.request("xhr_send", JSON.stringify(this.queue.splice(0, count)));
      if (!response.ok) throw new KiteError("disconnect", `A message was answered ${response.status}`, { code: String(response.status) });
      this.queuedBytes -= bytes;
    }
    this.isSending = false;
  }

  stop() {
    this.queue = [];
    this.control.abort();
  }
}

class StreamingTransport extends FetchTransport { path = "xhr_streaming"; }
class PollingTransport extends FetchTransport { path = "xhr"; }

const TRANSPORTS = new Map([["websocket", WebSocketTransport], ["xhr-streaming", StreamingTransport], ["xhr-polling", PollingTransport]]);

// MARK: dnode

/** One session: the functions that either side has given the other live as long as it does. */
class Connection {
  functions = new Map(); // by number: what the other side may call
  numbers = new Map(); // of the functions that stay
  nextNumber = 0;
  calls = new Set();
  served = 0;
  error = null;
  openedAt = 0;

  constructor(url, name, options, methods, onLost) {
    const { prefix, query } = parts(url);
    const Kind = TRANSPORTS.get(name);
    if (!Kind) throw new KiteError("argumentError", `There is no transport ${text(name, 64)}`);
    Object.assign(this, { url, name, options, methods, onLost });
    this.transport = new Kind(`${prefix}/${random("0123456789", 3)}/${random(letters, 20)}`, query, options, this);
  }

  open() {
    return new Promise((resolve, reject) => {
      Object.assign(this, { resolve, reject });
      this.openTimer = after(this.options.connectTimeout, () => this.transport.end(new KiteError("timeout", `No session over ${this.name} in time`)));
      try { this.transport.open(); } catch (error) { this.transport.end(asError(error)); }
    });
  }

  // What the transport tells.

  opened() {
    clearTimeout(this.openTimer);
    this.openedAt = this.lastHeard = Date.now();
    const { silenceTimeout } = this.options;
    if (silenceTimeout < Infinity) {
      this.watch = setInterval(() => {
        if (Date.now() - this.lastHeard > silenceTimeout) this.transport.end(new KiteError("disconnect", "Nothing was heard for too long"));
      }, Math.max(silenceTimeout / 4, 10));
    }
    this.resolve(this);
  }

  heard() { this.lastHeard = Date.now(); }

  closed(error) {
    clearTimeout(this.openTimer);
    clearInterval(this.watch);
    this.error = error;
    this.functions.clear();
    this.numbers.clear();
    for (const call of [...this.calls]) call(new KiteError("disconnect", error.message, { code: error.code }));
    this.reject(error);
    if (this.openedAt) this.onLost(this, error);
  }

  received(message) {
    let received;
    try { received = parse(message); } catch { throw new KiteError("protocolError", "A message that is no JSON"); }
    if (!isObject(received) || Array.isArray(received)) throw new KiteError("protocolError", "A message that is no object");
    const { method } = received;
    const given = this.unpack(received.arguments ?? [], received.callbacks ?? {});
    if (typeof method === "number") {
      // A number nobody knows: the answer to a call that was given up.
      try { Promise.resolve(this.functions.get(method)?.(...given)).catch(report); } catch (error) { report(error); }
    } else if (typeof method === "string") {
      this.serve(method, given);
    } else {
      throw new KiteError("protocolError", "A message without a method");
    }
  }

  end(error) { this.transport.end(error); }

  // Calls from here.

  call(method, withArgs, { timeout, signal }, caller) {
    return new Promise((resolve, reject) => {
      let timer, number;
      const finish = (error, result) => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        this.calls.delete(finish);
        this.functions.delete(number);
        error ? reject(error) : resolve(result);
      };
      const abort = () => finish(signal.reason ?? new KiteError("aborted", "The call was given up"));
      const answer = (...values) => {
        // Kites answer with one object, kite.js with an error and a result.
        if (values.length > 1) return values[0] ? finish(remoteError(values[0])) : finish(null, values[1]);
        if (!isObject(values[0])) return finish(new KiteError("invalidResponse", "The answer is no object"));
        const { error, result } = values[0];
        error ? finish(remoteError(error)) : finish(null, result);
      };
      if (signal?.aborted) return abort();
      this.calls.add(finish);
      number = this.nextNumber; // of the first function in the message, which is this one
      try {
        this.send(method, [{ ...caller, responseCallback: answer, withArgs }], answer);
      } catch (error) { return finish(asError(error, "sendError")); }
      timer = after(timeout, () => finish(new KiteError("timeout", `No answer to ${method} within ${timeout} ms`)));
      signal?.addEventListener("abort", abort);
    });
  }

  /** @param once a function that is not for keeping */
  send(method, values, once) {
    if (this.error) throw new KiteError("disconnect", this.error.message, { code: this.error.code });
    const made = [];
    try {
      const { given, callbacks } = this.pack(values, once, made);
      this.transport.send(JSON.stringify({ method, arguments: given, callbacks }));
    } catch (error) {
      for (const number of made) this.forget(number);
      throw asError(error, error instanceof TypeError ? "argumentError" : "sendError");
    }
  }

  forget(number) {
    const known = this.functions.get(number);
    this.functions.delete(number);
    if (this.numbers.get(known) === number) this.numbers.delete(known);
  }

  release(callback) {
    for (const [number, known] of this.functions) if (known === callback) this.forget(number);
  }

  /** Functions travel as numbers, with their places beside the arguments. */
  pack(values, once, made) {
    const callbacks = {};
    const around = new Set();
    const walk = (value, path) => {
      if (typeof value === "function") {
        let number = this.numbers.get(value);
        // A number stands for one place of a message only.
        if (number === undefined || Object.hasOwn(callbacks, number)) {
          if (this.functions.size >= this.options.maxCallbacks) throw new KiteError("sendError", "The kite was given too many functions; release() some");
          number = this.nextNumber++;
          made.push(number);
          this.functions.set(number, value);
          if (value !== once && !this.numbers.has(value)) this.numbers.set(value, number);
        }
        callbacks[number] = path;
        return "[Function]";
      }
      if (!isObject(value)) return value;
      if (typeof value.toJSON === "function") return walk(value.toJSON(), path);
      if (path.length >= DEEPEST || around.has(value)) throw new KiteError("argumentError", "The arguments are nested too deep, or contain themselves");
      around.add(value);
      let copy;
      if (Array.isArray(value)) {
        copy = value.map((item, index) => walk(item, [...path, index]));
      } else {
        copy = Object.create(null);
        for (const name of Object.keys(value)) copy[name] = walk(value[name], [...path, name]);
      }
      around.delete(value);
      return copy;
    };
    return { given: values.map((value, index) => walk(value, [index])), callbacks };
  }

  /** Puts functions that call the other side where it says. Every step of a path must be there; no prototype is ever looked at. */
  unpack(given, callbacks) {
    if (!Array.isArray(given) || !isObject(callbacks)) throw new KiteError("protocolError", "Arguments or callbacks are not what they must be");
    const entries = Object.entries(callbacks);
    if (entries.length > MOST_PLACES) throw new KiteError("protocolError", "Too many functions in a message");
    for (const [id, path] of entries) {
      if (!/^\d{1,15}$/.test(id) || !Array.isArray(path) || path.length === 0 || path.length > 2 * DEEPEST) throw new KiteError("protocolError", "A callback without a place");
      let place = given;
      for (const [depth, step] of path.entries()) {
        const isStep = typeof step === "string" || Number.isSafeInteger(step);
        const isThere = isStep && isObject(place) && (Array.isArray(place) ? /^\d+$/.test(step) : true) && Object.hasOwn(place, step);
        if (!isThere) throw new KiteError("protocolError", "A callback whose place is not there");
        if (depth < path.length - 1) place = place[step];
        else place[step] = (...values) => this.send(Number(id), values);
      }
    }
    return given;
  }

  // Calls from there.

  async serve(name, [options]) {
    const { withArgs, responseCallback } = isObject(options) ? options : {};
    const answer = (error, result) => {
      if (typeof responseCallback !== "function" || this.error) return;
      try {
        responseCallback({ error, result });
      } catch (problem) {
        // What cannot be sent as a result can be told at least.
        if (error === null && !this.error) answer({ type: "genericError", message: asError(problem).message, code: "", id: "" }, null);
      }
    };
    const refuse = (type, message) => answer({ type, message: text(message), code: "", id: "" }, null);
    const method = this.methods.get(name);
    if (!method) return refuse("methodNotFound", `Method not found: ${text(name, 256)}`);
    if (this.served >= this.options.maxServedCalls) return refuse("requestLimitError", "The maximum request rate is exceeded.");
    this.served += 1;
    try {
      const values = Array.isArray(withArgs) ? withArgs : withArgs == null ? [] : [withArgs];
      answer(null, (await method(...values)) ?? null);
    } catch (error) {
      refuse(error instanceof KiteError ? error.type : "genericError", error?.message ?? error);
    } finally { this.served -= 1; }
  }
}

// MARK: The kite

/** A remote kite: found, connected to, and connected to again when the connection breaks. */
export class Kite {
  #target;
  #options;
  #reconnect;
  #credential;
  #caller;
  #methods = new Map([["kite.ping", () => "pong"]]);
  #listeners = new Map();
  #state = "idle";
  #connection = null;
  #opening = null;
  #connecting = null;
  #renewal = null;
  #waiting = new Set();
  #found = null;
  #authentication = null;
  #goodTransport = null;
  #failures = 0;
  #retryTimer;
  #epoch = 0;
  #retryNow = () => { if (this.#state === "waiting") this.connect().catch(() => {}); };

  constructor(target, options = {}) {
    const isQuery = isObject(target) && !(target instanceof URL);
    if (isQuery && options.kontrol === undefined) throw new KiteError("argumentError", "A query needs the option `kontrol`, the URL to ask at");
    this.#target = isQuery ? queryOf(target) : target;
    if (!isQuery) parts(target);
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    this.#options = { ...DEFAULTS, ...Object.fromEntries(given) };
    for (const name of this.#options.transports) if (!TRANSPORTS.has(name)) throw new KiteError("argumentError", `There is no transport ${text(name, 64)}`);
    if (!this.#options.transports.length) throw new KiteError("argumentError", "At least one transport is needed");
    this.#reconnect = options.reconnect === false ? null : { ...RECONNECT, ...(isObject(options.reconnect) ? options.reconnect : {}) };
    this.#credential = credentialOf(options);
    this.#caller = {
      name: "browser", username: "anonymous", id: random(letters, 20), environment: "browser", region: "browser", version: "1.0.0",
      hostname: globalThis.location?.hostname || "browser", ...options.identity,
    };
    for (const [name, method] of Object.entries(options.methods ?? {})) this.register(name, method);
  }

  get state() { return this.#state; }
  get transport() { return this.#connection?.name ?? null; }
  get url() { return this.#connection ? String(this.#connection.url) : null; }

  // Events.

  on(event, listener) {
    if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
    this.#listeners.get(event).add(listener);
    return () => this.off(event, listener);
  }

  off(event, listener) { this.#listeners.get(event)?.delete(listener); }

  #emit(event, detail) {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      try { listener(detail); } catch (error) { report(error); }
    }
  }

  // Methods of the page.

  register(name, method) {
    if (typeof name !== "string" || !name || typeof method !== "function") throw new KiteError("argumentError", "A method is a name and a function");
    this.#methods.set(name, method);
    return this;
  }

  unregister(name) { this.#methods.delete(name); }

  release(callback) { this.#connection?.release(callback); }

  // Calls.

  tell(method, ...values) {
    const last = values.at(-1);
    const isOptions = isObject(last) && Object.getPrototypeOf(last) === Object.prototype && Object.keys(last).length > 0
      && Object.keys(last).every((name) => name === "timeout" || name === "signal");
    return isOptions ? this.call(method, values.slice(0, -1), last) : this.call(method, values);
  }

  async call(method, values = [], { timeout = this.#options.timeout, signal } = {}) {
    if (typeof method !== "string" || !method || !Array.isArray(values)) throw new KiteError("argumentError", "A call is a method's name and a list of arguments");
    if (!(timeout > 0)) throw new KiteError("argumentError", "A timeout is a number of milliseconds");
    const end = Date.now() + timeout;
    // Nothing is awaited while there is a connection: calls go out in the order in which they were made.
    if (!this.#connection) await this.#connected(method, timeout, signal);
    const once = () => {
      if (!this.#connection) throw new KiteError("disconnect", "There is no connection");
      const left = timeout === Infinity ? Infinity : Math.max(end - Date.now(), 1);
      const caller = { kite: this.#caller, authentication: this.#authentication };
      return this.#connection.call(method, values, { timeout: left, signal }, caller);
    };
    const used = this.#authentication;
    try {
      return await once();
    } catch (error) {
      const isExpired = error instanceof KiteError && error.type === "authenticationError" && error.message.includes("token is expired");
      if (!isExpired || !(await this.#renew(used))) throw error;
      return await once();
    }
  }

  /** Waits for a connection that is being made. */
  #connected(method, timeout, signal) {
    if (this.#state !== "connecting" && this.#state !== "waiting") throw new KiteError("disconnect", "Not connected: connect() comes first");
    if (this.#waiting.size >= this.#options.maxWaitingCalls) throw new KiteError("sendError", "Too many calls wait for a connection");
    return new Promise((resolve, reject) => {
      const finish = (error) => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        this.#waiting.delete(finish);
        error ? reject(error) : resolve();
      };
      const abort = () => finish(signal.reason ?? new KiteError("aborted", "The call was given up"));
      if (signal?.aborted) return reject(signal.reason);
      const timer = after(timeout, () => finish(new KiteError("timeout", `No connection for ${method} within ${timeout} ms`)));
      signal?.addEventListener("abort", abort);
      this.#waiting.add(finish);
    });
  }

  // The connection.

  connect() {
    if (this.#state === "connected") return Promise.resolve(this);
    if (this.#connecting) return this.#connecting;
    const isAgain = this.#state === "waiting";
    clearTimeout(this.#retryTimer);
    this.#state = "connecting";
    if (!isAgain) this.#failures = 0;
    globalThis.addEventListener?.("online", this.#retryNow);
    const epoch = isAgain ? this.#epoch : ++this.#epoch;
    this.#connecting = this.#attempt(epoch).then(
      () => this,
      (error) => {
        if (epoch !== this.#epoch) throw error;
        this.#connecting = null;
        if (isAgain) this.#retry(error); else this.#closed(error);
        throw error;
      });
    return this.#connecting;
  }

  async #attempt(epoch) {
    const check = () => { if (epoch !== this.#epoch) throw new KiteError("disconnect", "Closed by the page"); };
    const places = await this.#places();
    check(); // here and below: close() may have come
    const { transports } = this.#options;
    const order = [...transports].sort((a, b) => (b === this.#goodTransport) - (a === this.#goodTransport));
    let failure;
    for (const place of places) {
      for (const name of order) {
        let connection;
        try {
          connection = this.#opening = new Connection(place.url, name, this.#options, this.#methods, (lost, error) => this.#lost(lost, error));
          await connection.open();
        } catch (error) { failure = asError(error); } finally { if (this.#opening === connection) this.#opening = null; }
        check();
        if (!connection?.openedAt) continue;
        if (connection.error) { failure = connection.error; continue; } // gone again meanwhile
        this.#connection = connection;
        this.#found = place.kite;
        this.#authentication = place.authentication;
        this.#goodTransport = name;
        this.#state = "connected";
        this.#connecting = null;
        for (const go of [...this.#waiting]) go();
        this.#emit("connect", { transport: name, url: String(place.url) });
        return;
      }
    }
    throw failure;
  }

  /** Where the kite is, and what to show it. */
  async #places() {
    if (!this.#options.kontrol) return [{ url: this.#target, kite: null, authentication: await this.#credential?.() ?? null }];
    const kites = isPlainQuery(this.#target) ? await findKites(this.#target, this.#options) : [];
    if (!kites.length) throw new KiteError("connectError", "Kontrol knows no such kite");
    // Kites that match serve alike: each gets its share.
    for (let index = kites.length - 1; index > 0; index--) {
      const other = Math.floor(Math.random() * (index + 1));
      [kites[index], kites[other]] = [kites[other], kites[index]];
    }
    return kites.slice(0, 8).map(({ url, kite, token }) => ({ url, kite, authentication: token ? { type: "token", key: token } : null }));
  }

  /** Gets a new credential where that is possible. Calls that fail at the same time share it. */
  #renew(used) {
    if (this.#authentication !== used) return Promise.resolve(true); // renewed meanwhile
    const connection = this.#connection;
    this.#renewal ??= (async () => {
      let next = null;
      if (this.#found) {
        const key = await askKontrol("getToken", { ...this.#found, force: true }, this.#options);
        if (typeof key === "string") next = { type: "token", key };
      } else if (this.#credential?.canRenew) {
        next = await this.#credential();
      }
      if (!next || this.#connection !== connection) return false;
      this.#authentication = next;
      return true;
    })().catch(() => false).finally(() => { this.#renewal = null; });
    return this.#renewal;
  }

  #lost(connection, error) {
    if (connection !== this.#connection) return;
    this.#connection = null;
    if (Date.now() - connection.openedAt >= STABLE) this.#failures = 0;
    const willReconnect = this.#reconnect !== null && this.#reconnect.attempts > 0;
    this.#state = willReconnect ? "waiting" : "closed";
    const epoch = this.#epoch;
    this.#emit("disconnect", { error, willReconnect });
    if (epoch !== this.#epoch) return; // a listener has closed it, or begun anew
    if (this.#state === "waiting") this.#retry(error); else if (this.#state === "closed") this.#closed(error);
  }

  #retry(error) {
    const { minDelay, maxDelay, attempts } = this.#reconnect;
    if (this.#failures >= attempts) return this.#closed(error);
    // Between half and all of a delay that doubles: pages that lost one gateway do not come back all at once.
    const delay = Math.round(Math.min(maxDelay, minDelay * 2 ** Math.min(this.#failures, 30)) * (0.5 + Math.random() / 2));
    this.#failures += 1;
    this.#state = "waiting";
    this.#retryTimer = setTimeout(this.#retryNow, delay);
    this.#emit("retry", { attempt: this.#failures, delay, error });
  }

  close() {
    if (this.#state === "closed" || this.#state === "idle") return;
    const error = new KiteError("disconnect", "Closed by the page");
    const connection = this.#connection;
    const epoch = ++this.#epoch;
    this.#state = "closed";
    this.#connection = null;
    this.#connecting = null;
    clearTimeout(this.#retryTimer);
    this.#opening?.end(error);
    connection?.end(error);
    if (connection) this.#emit("disconnect", { error, willReconnect: false });
    if (epoch === this.#epoch) this.#closed(error);
  }

  #closed(error) {
    this.#epoch += 1;
    clearTimeout(this.#retryTimer);
    globalThis.removeEventListener?.("online", this.#retryNow);
    this.#state = "closed";
    for (const go of [...this.#waiting]) go(new KiteError("disconnect", error.message));
    this.#emit("close", { error });
  }
}

/** Connects to a kite, by URL or by what Kontrol knows of it. */
export function connect(target, options) { return Promise.resolve().then(() => new Kite(target, options).connect()); }

// MARK: Kontrol

const isPlainQuery = (target) => isObject(target) && !(target instanceof URL);

function queryOf(query) {
  return Object.fromEntries(QUERY_FIELDS.filter((name) => query[name] !== undefined).map((name) => [name, String(query[name])]));
}

/** What gives the credential: undefined without one; `canRenew` says whether asking again may give another. */
function credentialOf({ token, kiteKey }) {
  const [type, source] = token !== undefined ? ["token", token] : ["kiteKey", kiteKey];
  if (source == null) return undefined;
  return Object.assign(async () => {
    const key = typeof source === "function" ? await source() : source;
    if (typeof key !== "string") throw new KiteError("argumentError", "A token or kite key is a text");
    return { type, key: key.trim() };
  }, { canRenew: typeof source === "function" });
}

/** One question on a connection that ends with it. */
async function askKontrol(method, argument, options) {
  const { kontrol, token, kiteKey, transports, timeout, connectTimeout, credentials, identity } = options;
  const client = await connect(kontrol, { token, kiteKey, transports, timeout, connectTimeout, credentials, identity, reconnect: false });
  try { return await client.call(method, [argument]); } finally { client.close(); }
}

/** The kites that match a query, as Kontrol knows them, with tokens for them. */
export async function findKites(query, options) {
  if (!options?.kontrol) throw new KiteError("argumentError", "The option `kontrol` is needed, the URL to ask at");
  const answer = await askKontrol("getKites", { query: queryOf(query) }, options);
  const kites = isObject(answer) && Array.isArray(answer.kites) ? answer.kites.slice(0, 1_000) : [];
  return kites
    .filter((entry) => isObject(entry) && typeof entry.url === "string" && isObject(entry.kite))
    .map(({ kite, url, token, keyId }) => ({
      url, kite: Object.fromEntries(QUERY_FIELDS.map((name) => [name, text(kite[name])])), token: text(token, 65_536), keyId: text(keyId),
    }));
}
