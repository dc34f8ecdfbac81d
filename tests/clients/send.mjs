// node send.mjs PORT TAG FILE PIECE_BYTES MODE [gzip]: sends the file's bytes as records {message: piece}, and ends
// well once @fluent-org/logger has an ack for every one of them.
import { readFileSync } from "node:fs";
import { FluentClient } from "@fluent-org/logger";

const [port, tag, file, pieceBytes, eventMode] = process.argv.slice(2);
const client = new FluentClient(tag, {
  eventMode,
  socket: { host: "127.0.0.1", port: Number(port), timeout: 10_000 },
  ack: { ackTimeout: 20_000 },
  disconnect: { waitForPending: true },
});
const bytes = readFileSync(file);
const acked = [];
for (let at = 0; at < bytes.length; at += Number(pieceBytes)) {
  acked.push(client.emit({ message: bytes.subarray(at, at + Number(pieceBytes)) }));
}
await Promise.all(acked);
console.log(`${acked.length} acked`);
await client.disconnect();
