// Makes calls of every kind with @grpc/grpc-js, with and without a token, and prints as JSON what
// came of them. All settings come as one JSON object on standard input.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const REFLECTION = '/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo';
// ServerReflectionRequest{list_services: ""}: this package has no schema of its own for it.
const LIST_SERVICES = Buffer.from([0x3a, 0x00]);

const settings = JSON.parse(readFileSync(0, 'utf8'));

const definition = protoLoader.loadSync(
  [
    join(settings.protos, 'secure_api/tokens/v1/token_service.proto'),
    join(settings.protos, 'secure_api/users/v1/user_service.proto'),
  ],
  { includeDirs: [settings.protos], keepCase: true, enums: String, longs: Number, defaults: true },
);
const { secure_api: api } = grpc.loadPackageDefinition(definition);
const credentials = grpc.credentials.createSsl(
  readFileSync(settings.ca),
  readFileSync(settings.private_key),
  readFileSync(settings.certificate),
);
const tokens = new api.tokens.v1.TokenService(settings.address, credentials);
const users = new api.users.v1.UserService(settings.address, credentials);
const raw = new grpc.Client(settings.address, credentials);
const pass = (bytes) => bytes;

// One call as a promise of {code, details, responses}; `end` stops a stream that has none.
function unary(start) {
  return new Promise((resolve) => {
    start((error, response) =>
      resolve({
        code: grpc.status[error ? error.code : grpc.status.OK],
        details: error ? error.details : '',
        responses: error ? [] : [response],
      }),
    );
  });
}

function streaming(call, { take = Infinity, convert = (response) => response } = {}) {
  return new Promise((resolve) => {
    const responses = [];
    let taken = false;
    call.on('data', (response) => {
      responses.push(convert(response));
      if (responses.length === take) {
        taken = true;
        call.cancel();
      }
    });
    call.on('error', () => {}); // 'status' follows, and says the same
    call.on('status', ({ code, details }) =>
      resolve({
        code: grpc.status[taken ? grpc.status.OK : code],
        details: taken ? '' : details,
        responses,
      }),
    );
  });
}

async function callEveryKind(token, prefix) {
  const metadata = () => {
    const headers = new grpc.Metadata();
    if (token) headers.set('authorization', `Bearer ${token}`);
    return headers;
  };
  const options = () => ({ deadline: Date.now() + 30_000 });

  const whoAmI = await unary((done) => tokens.WhoAmI({}, metadata(), options(), done));

  const watchUsers = await streaming(users.WatchUsers({}, metadata(), options()), { take: 1 });

  const importUsers = await unary((done) => {
    const call = users.ImportUsers(metadata(), options(), done);
    for (const user_id of [`${prefix}-one`, `${prefix}-two`, 'Not A Name']) {
      call.write({ row: { user_id, user: { display_name: user_id } } });
    }
    call.end();
  });

  const introspectCall = tokens.Introspect(metadata(), options());
  introspectCall.write({ correlation_id: 'good', token: settings.token });
  introspectCall.write({ correlation_id: 'bad', token: 'x' });
  introspectCall.end();
  const introspect = await streaming(introspectCall);

  const reflectionCall = raw.makeBidiStreamRequest(REFLECTION, pass, pass, metadata(), options());
  reflectionCall.write(LIST_SERVICES);
  reflectionCall.end();
  const reflection = await streaming(reflectionCall, {
    convert: (bytes) => bytes.toString('latin1'),
  });

  return { whoAmI, watchUsers, importUsers, introspect, reflection };
}

const outcome = {
  withToken: await callEveryKind(settings.token, 'node'),
  withoutToken: await callEveryKind('', 'refused'),
};
for (const client of [tokens, users, raw]) client.close();
console.log(JSON.stringify(outcome));
