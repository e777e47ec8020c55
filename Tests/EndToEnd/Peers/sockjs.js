// A program that calls the kite at URL over one transport of Debian's node-sockjs-client: node sockjs.js URL TRANSPORT. Prints what happened
// (session.js) as JSON.
const SockJS = require("sockjs-client");
const session = require("./session.js");

const [kite, transport] = process.argv.slice(2);
const connect = () => new SockJS(kite, null, { transports: [transport], timeout: 5000 });
session(connect, transport).then((seen) => {
  console.log(JSON.stringify(seen));
  process.exit();
});
