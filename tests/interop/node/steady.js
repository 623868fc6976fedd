// Calls without a pause and without retries, on connections that stay open, until standard input
// ends; then prints as JSON how many were served and what became of the others.

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import grpc from '@grpc/grpc-js';

const HEALTH = '/grpc.health.v1.Health/Check';

const lines = createInterface({ input: process.stdin });
let over = false;
lines.on('close', () => {
  over = true;
});
const settings = JSON.parse(await new Promise((resolve) => lines.once('line', resolve)));

const credentials = grpc.credentials.createSsl(
  readFileSync(settings.ca),
  readFileSync(settings.private_key),
  readFileSync(settings.certificate),
);
const pass = (bytes) => bytes;
const outcome = { calls: 0, failed: {} };

async function callUntilOver() {
  const client = new grpc.Client(settings.address, credentials, {
    'grpc.enable_retries': 0,
    'grpc.use_local_subchannel_pool': 1,
  });
  while (!over) {
    await new Promise((resolve) => {
      const deadline = Date.now() + 20_000;
      const metadata = new grpc.Metadata();
      client.makeUnaryRequest(HEALTH, pass, pass, Buffer.alloc(0), metadata, { deadline }, (error) => {
        outcome.calls += 1;
        if (error) {
          const what = `${grpc.status[error.code]}: ${error.details}`;
          outcome.failed[what] = (outcome.failed[what] ?? 0) + 1;
        }
        resolve();
      });
    });
  }
  client.close();
}

await Promise.all(Array.from({ length: settings.callers }, callUntilOver));
console.log(JSON.stringify(outcome));
