// Reads recorded requests and answers once more with Node's HTTP: node read.mjs FOLDER
//
// Writes FOLDER/node.json: for each stream of FOLDER/streams.json the requests in it that are complete (`method`, `target`, `host`, `body`), and
// for each of FOLDER/answers.json the answers that are (`status`, `body`); where a visitor made one request only.
import { readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import { Duplex } from "node:stream";

const folder = process.argv[2];
const read = (name) => JSON.parse(readFileSync(`${folder}/${name}.json`));

/** A socket on which bytes arrive, then, once they have been worked off, the end; what is written goes nowhere. */
class Recorded extends Duplex {
  constructor(bytes) {
    super();
    this.bytes = bytes;
  }
  _read() {
    if (this.bytes) {
      this.push(this.bytes);
      this.bytes = null;
      this.endAfter(40);
    }
  }
  endAfter(turns) {
    setImmediate(() => {
      if (turns === 10) this.push(null);
      if (turns) this.endAfter(turns - 1);
      else this.destroy();
    });
  }
  _write(chunk, encoding, done) {
    done();
  }
  setTimeout() {}
  setNoDelay() {}
  setKeepAlive() {}
  ref() {}
  unref() {}
}

const host = (message) =>
  message.rawHeaders.filter((_, index) => index % 2 && message.rawHeaders[index - 1].toLowerCase() === "host").join(",");

function requests(bytes) {
  return new Promise((resolve) => {
    const found = [];
    const server = http.createServer(
      { insecureHTTPParser: false, maxHeaderSize: 1 << 20, requireHostHeader: false, keepAliveTimeout: 0, requestTimeout: 0 },
      (request, response) => {
        const body = [];
        request.on("data", (data) => body.push(data));
        request.on("error", () => {});
        request.on("end", () => {
          if (request.complete) {
            found.push({
              method: request.method, target: request.url, host: host(request), body: Buffer.concat(body).toString("base64"),
            });
          }
          response.end();
        });
      },
    );
    server.maxHeadersCount = 0;
    const socket = new Recorded(bytes);
    // Requests before the one that is refused are still being reported.
    server.on("clientError", () => {});
    socket.on("close", () => resolve(found));
    socket.on("error", () => {});
    server.emit("connection", socket);
  });
}

function answers(bytes, method) {
  return new Promise((resolve) => {
    const socket = new Recorded(bytes);
    const request = http.request({ createConnection: () => socket, method, host: "h", maxHeaderSize: 1 << 20 });
    request.maxHeadersCount = 0;
    request.on("upgrade", (response) => {
      socket.destroy();
      resolve([{ status: response.statusCode, body: "" }]);
    });
    request.on("response", (response) => {
      const body = [];
      response.on("data", (data) => body.push(data));
      response.on("error", () => resolve([]));
      response.on("end", () =>
        resolve(response.complete ? [{ status: response.statusCode, body: Buffer.concat(body).toString("base64") }] : []));
    });
    request.on("error", () => resolve([]));
    socket.on("close", () => setImmediate(() => resolve([])));
    request.end();
  });
}

async function all(items, reader) {
  const found = [];
  for (const item of items) found.push(await reader(item));
  return found;
}

const result = {
  requests: await all(read("streams"), (stream) => requests(Buffer.from(stream.bytes, "base64"))),
  answers: await all(read("answers"), (visitor) =>
    visitor.methods.length === 1 ? answers(Buffer.from(visitor.bytes, "base64"), visitor.methods[0]) : null),
};
writeFileSync(`${folder}/node.json`, JSON.stringify(result));
