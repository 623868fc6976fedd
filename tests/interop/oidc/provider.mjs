// A certified OpenID provider that issues tokens for tests, over TLS on 127.0.0.1. The first line on
// standard input is one JSON object with all settings; once it serves, it prints its issuer. Then
// {"rotate": {"keep_old": true}} signs with new keys and publishes them before the old ones, and
// {"retire": true} publishes only the keys that sign; each is answered by one line with the key IDs
// that are published from then on. It ends when standard input does.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import Provider from 'oidc-provider';

const LIFETIME = 300; // seconds
const SCOPE = 'read write';
const SIGNERS = [
  { alg: 'RS256', type: 'rsa', options: { modulusLength: 2048 } },
  { alg: 'ES256', type: 'ec', options: { namedCurve: 'P-256' } },
];
const FORMATS = {
  'urn:jwt': { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } },
  'urn:es': { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } },
  'urn:opaque': { accessTokenFormat: 'opaque' },
};

// The library's notices would stand between the answers.
console.info = console.error;

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const settings = JSON.parse((await lines.next()).value);
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

const freshKeys = () =>
  SIGNERS.map(({ alg, type, options }) => {
    const { privateKey } = generateKeyPairSync(type, options);
    return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg };
  });

// Outlives every provider, so that a rotation forgets no opaque token.
const remembered = new Map();

class Memory {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload) {
    remembered.set(`${this.model}:${id}`, payload);
  }

  async find(id) {
    return remembered.get(`${this.model}:${id}`);
  }

  async destroy(id) {
    remembered.delete(`${this.model}:${id}`);
  }
}

function client(id, more) {
  return {
    client_id: id,
    client_secret: settings.secrets[id],
    token_endpoint_auth_method: 'client_secret_basic',
    redirect_uris: [],
    response_types: [],
    ...more,
  };
}

function makeProvider(issuer, keys) {
  const provider = new Provider(issuer, {
    adapter: Memory,
    jwks: { keys },
    clients: [
      client('service', { grant_types: ['client_credentials'] }),
      client('bound', {
        grant_types: ['client_credentials'],
        tls_client_certificate_bound_access_tokens: true, // RFC 8705, section 3.4
      }),
      client('api', { grant_types: [] }),
    ],
    ttl: { ClientCredentials: LIFETIME },
    extraTokenClaims: () => ({ groups: ['team-a-admins'] }),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource) => ({
          scope: SCOPE,
          audience: settings.audience,
          ...FORMATS[resource],
        }),
      },
      introspection: { enabled: true, allowedPolicy: (_ctx, { clientId }) => clientId === 'api' },
      revocation: {
        enabled: true,
        allowedPolicy: (_ctx, { clientId }, token) => clientId === token.clientId,
      },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        getCertificate: ({ req: { socket } }) =>
          socket.authorized ? socket.getPeerX509Certificate() : undefined,
      },
    },
  });
  // What a client is not told.
  provider.on('grant.error', (_ctx, error) => console.error(error.error_detail ?? error.message));
  provider.on('server_error', (_ctx, error) => console.error(error));
  return provider;
}

let answer;
const server = createServer(
  {
    cert: readFileSync(settings.certificate),
    key: readFileSync(settings.private_key),
    ca: readFileSync(settings.client_ca),
    requestCert: true,
    rejectUnauthorized: false, // most clients have no certificate
  },
  (request, response) => answer(request, response),
);
let keys = existsSync(settings.keys) ? JSON.parse(readFileSync(settings.keys)).keys : freshKeys();
await once(server.listen(settings.port, '127.0.0.1'), 'listening');
const issuer = `https://localhost:${server.address().port}`;

// A provider's keys are fixed when it is made: other keys are another provider over the same memory.
function publish(next) {
  answer = makeProvider(issuer, next).callback();
  keys = next;
  writeFileSync(settings.keys, JSON.stringify({ keys }), { mode: 0o600 });
  return keys.map(({ kid }) => kid);
}

publish(keys);
say({ ready: true, issuer });

for await (const line of lines) {
  const { rotate } = JSON.parse(line);
  if (rotate) {
    // The first key that fits is the one that signs.
    say({ rotated: publish([...freshKeys(), ...(rotate.keep_old ? keys : [])]) });
  } else {
    say({ retired: publish(keys.slice(0, SIGNERS.length)) });
  }
}
process.exit();
