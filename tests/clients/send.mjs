// node send.mjs PORT TAG FILE PIECE_BYTES MODE [SECURITY_JSON [CA_FILE]]: sends the file's bytes as records
// {message: piece}, and ends well once @fluent-org/logger has an ack for every one of them. SECURITY_JSON is the client's
// option `security`; with CA_FILE it speaks TLS, and knows the receiver by that authority.
import { readFileSync } from "node:fs";
import { FluentClient } from "@fluent-org/logger";

const [port, tag, file, pieceBytes, eventMode, security, caFile] = process.argv.slice(2);
const client = new FluentClient(tag, {
  eventMode,
  socket: {
    host: "127.0.0.1",
    port: Number(port),
    timeout: 10_000,
    ...(caFile ? { tls: { ca: readFileSync(caFile) } } : {}),
  },
  ...(security ? { security: JSON.parse(security) } : {}),
  ack: { ackTimeout: 20_000 },
  disconnect: { waitForPending: true },
});
client.socketOn("error", (error) => {
  console.error(error.message);
  process.exitCode = 1;
});
const bytes = readFileSync(file);
const acked = [];
for (let at = 0; at < bytes.length; at += Number(pieceBytes)) {
  acked.push(client.emit({ message: bytes.subarray(at, at + Number(pieceBytes)) }));
}
await Promise.all(acked);
console.log(`${acked.length} acked`);
await client.disconnect();
