// The same from Node: npm install @grpc/grpc-js @grpc/proto-loader
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "package.json"));
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const target = process.argv[2] ?? "localhost:50052";
const proto = process.argv[3] ?? "protos/greeter/v1/greeter.proto";
const { greeter } = grpc.loadPackageDefinition(loader.loadSync(proto));

const tls = grpc.credentials.createSsl(
  readFileSync("certs/ca.pem"),
  readFileSync("certs/clients/admin.key"),
  readFileSync("certs/clients/admin.pem"),
);
const token = grpc.credentials.createFromMetadataGenerator((_, done) => {
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${readFileSync("token", "utf8").trim()}`);
  done(null, metadata);
});
const client = new greeter.v1.GreeterService(
  target,
  grpc.credentials.combineChannelCredentials(tls, token),
);

const all = (stream) =>
  new Promise((resolve, reject) => {
    stream.on("data", (response) => console.log(response.message));
    stream.on("error", reject).on("end", resolve);
  });
const one = (start) =>
  new Promise((resolve, reject) =>
    start((error, response) => (error ? reject(error) : resolve(console.log(response.message)))),
  );

await one((done) => client.sayHello({}, done));
await all(client.sayHellos({ times: 2 }));
await one((done) => {
  const call = client.greetAll(done);
  for (const name of ["Ada", "Grace"]) call.write({ name });
  call.end();
});
const chat = client.chat();
const answers = all(chat);
for (const name of ["Alan", "Edsger"]) chat.write({ name });
chat.end();
await answers;
client.close();
