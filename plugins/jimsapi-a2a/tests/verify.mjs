// Verifies the signature of an agent card with @a2a-js/sdk, by the key that the card names.
import { verifyAgentCardSignature } from '@a2a-js/sdk';
import { DefaultAgentCardResolver } from '@a2a-js/sdk/client';
import { importJWK } from 'jose';

const { url, base } = JSON.parse(process.argv[2]);
console.debug = () => {};

const verify = verifyAgentCardSignature(async (kid, jku) => {
  const published = await (await fetch(url + jku.slice(base.length))).json();
  const key = published.keys.find((one) => one.kid === kid);
  return await importJWK(key, key.alg);
});

const card = await new DefaultAgentCardResolver().resolve(url);
await verify(card);
let changed = null;
try {
  await verify({ ...card, name: 'another' });
} catch (error) {
  changed = error.message;
}
console.log(JSON.stringify({ verified: true, changed }));
