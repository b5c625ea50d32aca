/** Who may tell the daemon what? Each refusal has the status that docs/security.md says. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { status as Code } from '@grpc/grpc-js';

import { CacheCallError, type TlsFiles } from '../src';
import { HostClient } from '../src/host-client';
import { checkOneHost } from '../src/one-host';
import { Authority } from './support/authority';
import { Daemon } from './support/daemon';

const folder = mkdtempSync(join(tmpdir(), 'cachesvc-access-'));
const ours = new Authority(folder, 'ours');
const theirs = new Authority(folder, 'theirs');
const backend = ours.issue('backend', 'DNS:backend.example');
const server = ours.issue('server', 'IP:127.0.0.2');
const certificates = { 'backend.example': ['backend' as const], 'worker.example': ['worker' as const] };
const byCertificate = new Daemon('gpu1', server, true, { certificates });
const byToken = new Daemon('gpu2', server, false, {
  tokens: { 'of-the-backend': ['backend'], 'of-a-worker': ['worker'] },
});

before(async () => {
  await Promise.all([byCertificate.start(), byToken.start()]);
});

after(async () => {
  await Promise.all([byCertificate.close(), byToken.close()]);
  rmSync(folder, { recursive: true });
});

async function answerTo(daemon: Daemon, tls: TlsFiles, token?: string): Promise<string> {
  const options = { hosts: [daemon.host], redis: {}, tls, ...(token && { token: () => token }) };
  const client = new HostClient(daemon.host, options);
  const changed_at = { seconds: '1', nanos: 0 };
  try {
    await client.invalidate({ user_id: 'nobody', changed_at });
    return 'OK';
  } catch (error) {
    assert.ok(error instanceof CacheCallError, String(error));
    return `${Code[error.code]} ${error.reason}`.trim();
  } finally {
    client.close();
  }
}

test('the backend may invalidate with its certificate', async () => {
  assert.equal(await answerTo(byCertificate, backend), 'OK');
});

test('an address of several hosts is refused before one of them acknowledges', async () => {
  const options = { hosts: [byCertificate.host], redis: {}, tls: backend };
  const addresses = ['10.0.0.5', '10.0.0.6', '10.0.0.5'].map((address) => ({ address, family: 4 }));
  const named = { ...byCertificate.host, address: byCertificate.address.replace(/.*:/, 'gpus.example:') };
  const client = new HostClient(named, options, async () => addresses);
  try {
    await assert.rejects(client.invalidate({ user_id: 'ann', changed_at: { seconds: '1', nanos: 0 } }), {
      code: Code.FAILED_PRECONDITION,
      reason: 'SEVERAL_HOSTS',
      verdict: 'slowly',
      details: /gpus\.example has 2 addresses/,
    });
  } finally {
    client.close();
  }
});

test('one address of each family is one host', async () => {
  const asked: string[] = [];
  const look = async (name: string) => {
    asked.push(name);
    return [{ address: '127.0.0.1', family: 4 }, { address: '::1', family: 6 }];
  };
  for (const address of ['gpu1:8443', 'dns:gpu1:8443', 'dns:///gpu1:8443', '10.0.0.5:8443', '[::1]:1', 'unix:/run/s']) {
    await checkOneHost({ name: 'gpu1', address }, look);
  }
  assert.deepEqual(asked, ['gpu1', 'gpu1', 'gpu1']);
});

test('without a certificate TLS itself refuses', async () => {
  assert.equal(await answerTo(byCertificate, { caFile: ours.caFile }), 'UNAVAILABLE');
});

test('with a certificate of a foreign CA TLS itself refuses', async () => {
  const foreign = { ...theirs.issue('foreign', 'DNS:backend.example'), caFile: ours.caFile };
  assert.equal(await answerTo(byCertificate, foreign), 'UNAVAILABLE');
});

test('a daemon of a foreign CA is told nothing', async () => {
  const trusting = { ...backend, caFile: theirs.caFile };
  assert.equal(await answerTo(byCertificate, trusting), 'UNAVAILABLE');
});

test('a certificate of ours with a name that is not on the list is unknown', async () => {
  const stranger = ours.issue('stranger', 'DNS:stranger.example');
  assert.equal(await answerTo(byCertificate, stranger), 'UNAUTHENTICATED CREDENTIAL_UNKNOWN');
});

test('the role worker may not invalidate', async () => {
  const worker = ours.issue('worker', 'DNS:worker.example');
  assert.equal(await answerTo(byCertificate, worker), 'PERMISSION_DENIED ROLE_MISSING');
});

test('a bearer token is as good as a certificate where none is demanded', async () => {
  const tls = { caFile: ours.caFile };
  assert.equal(await answerTo(byToken, tls, 'of-the-backend'), 'OK');
  assert.equal(await answerTo(byToken, tls, 'of-a-worker'), 'PERMISSION_DENIED ROLE_MISSING');
  assert.equal(await answerTo(byToken, tls, 'guessed'), 'UNAUTHENTICATED CREDENTIAL_UNKNOWN');
  assert.equal(await answerTo(byToken, tls), 'UNAUTHENTICATED CREDENTIAL_REQUIRED');
});

test('a certificate that is replaced is used from the next call on', async () => {
  const options = { hosts: [byCertificate.host], redis: {}, tls: ours.issue('turn', 'DNS:no') };
  const client = new HostClient(byCertificate.host, options);
  const request = { user_id: 'nobody', changed_at: { seconds: '1', nanos: 0 } };
  await assert.rejects(client.invalidate(request), { code: Code.UNAUTHENTICATED });
  ours.issue('turn', 'DNS:backend.example');
  await client.invalidate(request);
  client.close();
});
