// Finds a kite through Kontrol with the module that the gateway serves: kite-kontrol.mjs GATEWAY KONTROL KEY-FILE NAME. Prints what happened as JSON.
import { readFile } from "node:fs/promises";

const [gateway, kontrol, keyFile, name] = process.argv.slice(2);
const source = await (await fetch(`${gateway}/-/kite.js`)).text();
const { connect, findKites } = await import(`data:text/javascript;base64,${Buffer.from(source).toString("base64")}`);
const kiteKey = await readFile(keyFile, "utf8");
const { sub: username } = JSON.parse(Buffer.from(kiteKey.split(".")[1], "base64url"));
const query = { username, environment: "development", name };
const seen = {};
for (const transport of ["xhr-streaming", "xhr-polling"]) {
  const options = { kontrol, kiteKey, transports: [transport] };
  const kite = await connect(query, { ...options, methods: { twice: (number) => 2 * number } });
  const [found] = await findKites(query, options);
  const missing = await findKites({ ...query, name: "nosuch" }, options).catch((error) => error.type);
  seen[transport] = { callPage: await kite.tell("callPage", 4), isFound: kite.url === found.url && found.token.length > 100, missing };
  kite.close();
}
console.log(JSON.stringify(seen));
