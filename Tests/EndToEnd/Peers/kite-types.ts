// What the module's types must accept, and what they must not. Compiled, never run; kite.d.ts lies beside it then.
import { connect, Kite, KiteError, findKites, FoundKite, RemoteFunction } from "./kite";

async function use() {
  const kite: Kite = await connect("https://gateway.example/proxy/math", { token: async () => "t", transports: ["websocket"], reconnect: { minDelay: 1 } });
  const n: number = await kite.tell<number>("square", 4);
  const m: number = await kite.tell<number>("square", 4, { timeout: 5 });
  const u: unknown = await kite.tell("x", () => {}, { a: 1 });
  const s: string = await kite.call<string>("x", [{ timeout: 1 }], { timeout: Infinity, signal: new AbortController().signal });
  kite.register("a", (x: number, f: RemoteFunction) => f(x)).register("b", async () => 1);
  const off: () => void = kite.on("connect", ({ transport, url }) => { const t: "websocket" | "xhr-streaming" | "xhr-polling" = transport; url.length; });
  kite.on("retry", ({ delay, attempt, error }) => delay + attempt + error.type.length);
  off(); kite.off("close", () => {}); kite.release(() => {}); kite.close(); await new Kite(new URL("http://x")).connect();
  await connect({ name: "math" }, { kontrol: "http://k/kite", kiteKey: "k" });
  const f: FoundKite[] = await findKites({ username: "u" }, { kontrol: new URL("http://k/kite"), token: "t" });
  const e: KiteError = new KiteError("a", "b", { code: "c" }); e.type; e.message;
}
async function wrong(kite: Kite) {
  // @ts-expect-error
  await connect({ name: "math" }, { kiteKey: "k" });
  // @ts-expect-error
  await connect({ name: "math" });
  // @ts-expect-error
  await connect("http://x", { transports: ["xhr"] });
  // @ts-expect-error
  kite.on("nothing", () => {});
  // @ts-expect-error
  kite.state = "closed";
  // @ts-expect-error
  kite.register("a", 1);
  // @ts-expect-error
  await kite.call("m", 1);
  // @ts-expect-error
  await findKites({ nam: "x" }, { kontrol: "x" });
}
