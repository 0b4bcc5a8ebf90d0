// dcmjs-dimse as scanner: C-ECHO, then C-STORE of each file, on one association. Prints what it was told, and
// exits with 0 when every answer was success and the association was released.
// Argument: JSON {"port": 11112, "files": [path], "tls": {"ca": path, "cert": path, "key": path} or null}
"use strict";

const fs = require("node:fs");
const { Client, log, requests } = require("dcmjs-dimse");

const order = JSON.parse(process.argv[2]);
const told = { statuses: [], released: false, error: null };

function listening(request) {
  request.on("response", (response) => told.statuses.push(response.getStatus()));
  return request;
}

function papers() {
  const entries = Object.entries(order.tls).map(([name, path]) => [name, fs.readFileSync(path)]);
  return { ...Object.fromEntries(entries), rejectUnauthorized: true };
}

function conclude() {
  const stored = told.statuses.length === order.files.length + 1 && told.statuses.every((status) => status === 0);
  console.log(JSON.stringify(told));
  process.exit(stored && told.released ? 0 : 1);
}

log.setLevel("silent");
const client = new Client();
client.addRequest(listening(new requests.CEchoRequest()));
order.files.forEach((path) => client.addRequest(listening(new requests.CStoreRequest(path))));
client.on("networkError", (error) => {
  told.error = String(error);
});
client.on("associationReleased", () => {
  told.released = true;
});
client.on("closed", conclude);
client.send("127.0.0.1", order.port, "DCMJS", "EDGEGW", order.tls ? { securityOptions: papers() } : {});
