/** How messages travel: by WebSocket, by answers that stream, or by answers that are waited for one by one. */
export type TransportName = "websocket" | "xhr-streaming" | "xhr-polling";

/**
 * - `idle`: `connect()` has not been called.
 * - `connecting`: an attempt is under way. Calls wait for it.
 * - `connected`
 * - `waiting`: the connection broke, the next attempt comes. Calls wait for it.
 * - `closed`: by the page, or because no further attempt is made. `connect()` begins anew.
 */
export type KiteState = "idle" | "connecting" | "connected" | "waiting" | "closed";

/** Who a kite is. All fields are texts. */
export interface KiteIdentity {
  username: string;
  environment: string;
  name: string;
  version: string;
  region: string;
  hostname: string;
  id: string;
}

/** What a kite must match: fields from the left without gaps, or the `id` alone. `version` may be a constraint, such as `>= 1.0, < 2.0`. */
export type KiteQuery = Partial<KiteIdentity>;

/** A token or kite key, or what gets one: asked at each connection, and when a token has expired. */
export type Credential = string | (() => string | Promise<string>);

/** A method of the page. What it returns, or what the promise holds, is the answer; what it throws is the answer's error. */
export type Method = (...args: any[]) => unknown;

/** A function of the kite's that came as an argument. It may be called any number of times while the connection lasts; there is no answer. */
export type RemoteFunction = (...args: unknown[]) => void;

/** Numbers of milliseconds, and of attempts. */
export interface ReconnectOptions {
  /** Before the first attempt, at most; it doubles with each further one. Default 500. */
  minDelay?: number;
  /** Default 30000. */
  maxDelay?: number;
  /** In a row, without success. Default: without end. */
  attempts?: number;
}

export interface ConnectionOptions {
  /** Shown with each call to a kite that is named by URL; for a query, shown to Kontrol. */
  token?: Credential;
  /** As `token`. A kite key is its user's whole identity: use one on pages that only that user sees. */
  kiteKey?: Credential;
  /** Those to try, in this order. The one that worked last is tried first. Default: all three. */
  transports?: TransportName[];
  /** Of a call, unless it says otherwise: milliseconds, or Infinity. Default 30000. */
  timeout?: number;
  /** Of an attempt over one transport, in milliseconds. Default 5000. */
  connectTimeout?: number;
  /** Of the requests of both XHR transports: `include` where a load balancer needs its cookie. Default `same-origin`. */
  credentials?: RequestCredentials;
  /** How the page is called in the kite's logs. */
  identity?: Partial<KiteIdentity>;
}

export interface KiteOptions extends ConnectionOptions {
  /** Where to ask for kites, such as `http://gateway.example:4000/kite`. Needed with a query. */
  kontrol?: string | URL;
  /** Methods that the kite may call, by name, from the first moment on. */
  methods?: Record<string, Method>;
  /** `false`: a connection that breaks is not made again. */
  reconnect?: ReconnectOptions | false;
  /** A connection on which nothing is heard for so long, in milliseconds, not even a heartbeat, is given up. Default 35000. */
  silenceTimeout?: number;
  /** What may wait to be sent; a call that would be more fails with `sendError`. Default 16 MiB. */
  maxQueuedBytes?: number;
  /** The largest frame that is read; a larger one ends the connection. Default 64 MiB. */
  maxReceivedBytes?: number;
  /** Functions that the kite may hold. Default 10000. */
  maxCallbacks?: number;
  /** Calls that may wait for a connection. Default 1000. */
  maxWaitingCalls?: number;
  /** Calls of the kite that may be served at a time. Default 256. */
  maxServedCalls?: number;
}

export interface CallOptions {
  /** Milliseconds, or Infinity; the time until there is a connection counts. */
  timeout?: number;
  /** Gives the call up; the kite is not told. */
  signal?: AbortSignal;
}

export interface KiteEvents {
  /** There is a connection: the first one, or another after a `disconnect`. Functions given to the kite before are forgotten there. */
  connect: { transport: TransportName; url: string };
  /** The connection has ended. Calls without answer have failed with `disconnect`: they may have been served or not. */
  disconnect: { error: KiteError; willReconnect: boolean };
  /** Another attempt comes after `delay` milliseconds, or at once when the network comes back. */
  retry: { attempt: number; delay: number; error: KiteError };
  /** Nothing more is tried. */
  close: { error: KiteError };
}

/**
 * `type` is the kite's word: `methodNotFound`, `authenticationError`, `requestLimitError`, `argumentError`, `genericError` or its own. Made here:
 * `timeout`, `sendError`, `disconnect`, `invalidResponse`, `connectError`, `protocolError`, `argumentError`, `aborted`.
 */
export class KiteError extends Error {
  readonly type: string;
  readonly code: string;
  /** The request's, as in the kite's log. */
  readonly id: string;
  /** Thrown by a method of the page, the kite is told the type, too. */
  constructor(type: string, message: string, details?: { code?: string; id?: string });
}

export class Kite {
  /**
   * @param target where the kite is (`https://gateway.example/proxy/math`, relative to the page where not absolute), or a query for Kontrol.
   * @throws KiteError `argumentError` for a target or options that cannot be used.
   */
  constructor(target: string | URL, options?: KiteOptions);
  constructor(target: KiteQuery, options: KiteOptions & { kontrol: string | URL });

  readonly state: KiteState;
  /** Null while there is no connection. */
  readonly transport: TransportName | null;
  /** Where the connected kite is; null while there is no connection. */
  readonly url: string | null;

  /** Connects. When the first attempt fails nothing more is tried; while `waiting`, the next attempt is made now. */
  connect(): Promise<this>;
  /** Ends everything. Calls without answer fail with `disconnect`. */
  close(): void;

  /**
   * Calls a method of the kite. Functions among the arguments may be called by the kite any number of times.
   *
   * A last argument that is a plain object with `timeout` or `signal` or both, and nothing else, is the call's options. Use `call` where the
   * method itself takes such an object.
   */
  tell<Result = unknown>(method: string, ...argumentsAndOptions: [...unknown[], CallOptions] | unknown[]): Promise<Result>;
  /** Calls a method of the kite with exactly these arguments. */
  call<Result = unknown>(method: string, args?: readonly unknown[], options?: CallOptions): Promise<Result>;

  /** Lets the kite call a method of the page; one with the same name is replaced. */
  register(name: string, method: Method): this;
  unregister(name: string): void;
  /** Forgets a function that was given to the kite as an argument, on this connection. */
  release(callback: (...args: any[]) => unknown): void;

  /** @returns what takes the listener away again. */
  on<Name extends keyof KiteEvents>(event: Name, listener: (detail: KiteEvents[Name]) => void): () => void;
  off<Name extends keyof KiteEvents>(event: Name, listener: (detail: KiteEvents[Name]) => void): void;
}

/** Makes a `Kite` and connects it. */
export function connect(target: string | URL, options?: KiteOptions): Promise<Kite>;
export function connect(target: KiteQuery, options: KiteOptions & { kontrol: string | URL }): Promise<Kite>;

export interface FoundKite {
  kite: KiteIdentity;
  url: string;
  /** For calls to this kite; empty where Kontrol gave none. */
  token: string;
  keyId: string;
}

/**
 * The kites that match a query, as Kontrol knows them.
 * @throws KiteError; Kontrol answers `genericError` where none matches.
 */
export function findKites(query: KiteQuery, options: ConnectionOptions & { kontrol: string | URL }): Promise<FoundKite[]>;
